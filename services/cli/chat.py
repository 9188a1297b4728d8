"""`headrace chat`: one question, or a conversation."""

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from services.cli import calls, where
from services.cli.exits import USAGE, CliError
from services.cli.telling import tell
from services.client import Client, HeadraceError, JsonSchema, Message, Resume, Sampling
from services.client.messages import Effort

AGAIN = 0.25  # seconds between two tries while no replica answers


@dataclass(frozen=True, slots=True)
class Talk:
    """How to ask. `session` is an id, `new` or empty."""

    model: str
    session: str
    system: str
    max_tokens: int | None
    temperature: float | None
    patience: float
    effort: Effort | None = None
    reasoning: bool = False
    schema: Path | None = None

    def format(self) -> JsonSchema | None:
        """Raises CliError if the file holds no JSON object."""
        if self.schema is None:
            return None
        try:
            schema = json.loads(self.schema.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CliError(
                f"{self.schema}: {error}", "--schema takes a JSON Schema file.", code=USAGE
            ) from error
        if not isinstance(schema, dict):
            raise CliError(f"{self.schema} holds no JSON object", code=USAGE)
        return JsonSchema(schema)


def talk(wish: Talk, prompt: str | None, endpoint: str | None, key_file: Path | None) -> None:
    target = where.find(endpoint, key_file)
    calls.warn_if_exposed(target)
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
    if prompt == "":
        raise CliError("there is nothing to ask", 'Example: headrace chat "Hello"', code=USAGE)
    # The runner turns a Ctrl-C into a cancelled turn, and lets the next one use the same channel.
    with asyncio.Runner() as runner:
        conversation = runner.run(_opened(wish, target))
        try:
            if prompt is None:
                _converse(runner, conversation, target)
            else:
                runner.run(conversation.say(prompt))
        except HeadraceError as error:
            raise calls.explained(error, target) from error
        finally:
            runner.run(conversation.client.close())


async def _opened(wish: Talk, target: where.Target) -> "Conversation":
    client = target.client(resume=Resume(first_seconds=wish.patience))
    history = [Message("system", wish.system)] if wish.system else []
    if wish.session != "new":
        return Conversation(client, wish, wish.session, history)
    try:
        session = await client.sessions.create(history)
    except HeadraceError as error:
        await client.close()
        raise calls.explained(error, target) from error
    print(f"session {session.id}", file=sys.stderr)
    return Conversation(client, wish, session.id, [])


def _converse(runner: asyncio.Runner, conversation: "Conversation", target: where.Target) -> None:
    import readline  # noqa: F401 - input() edits lines with it

    print(f"Talking to {target.address}. Ctrl-C ends an answer, Ctrl-D the conversation.", file=sys.stderr)
    while True:
        try:
            prompt = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not prompt:
            continue
        try:
            runner.run(conversation.say(prompt))
        except KeyboardInterrupt:
            print(" [ended]")
            runner.run(conversation.client.settle())
        except HeadraceError as error:
            print(f"headrace: {calls.explained(error, target)}", file=sys.stderr)


class Conversation:
    """History is kept by the endpoint's session, or here where there is none."""

    def __init__(self, client: Client, wish: Talk, session: str, history: list[Message]) -> None:
        self.client = client
        self._wish = wish
        self._session = session
        self._format = wish.format()
        self._history = history

    async def say(self, prompt: str) -> None:
        """Streams the answer to the terminal and remembers it; a turn that failed leaves no trace."""
        said = [*self._history, Message("user", prompt)]
        until = time.monotonic() + self._wish.patience
        while True:
            shown = list[str]()
            try:
                await self._stream(said, shown)
                break
            except HeadraceError as error:
                # What was shown would be shown twice.
                if error.code is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > until or shown:
                    raise
                await asyncio.sleep(AGAIN)
        if not self._session:
            self._history = [*said, Message("assistant", "".join(shown))]
        else:
            self._history = []

    async def _stream(self, said: list[Message], shown: list[str]) -> None:
        wish = self._wish
        stream = self.client.stream(
            said,
            model=wish.model,
            session=self._session,
            sampling=None if wish.temperature is None else Sampling(temperature=wish.temperature),
            max_tokens=wish.max_tokens,
            effort=wish.effort,
            reasoning=wish.reasoning,
            format=self._format,
        )
        await tell(stream, shown)
