"""`headrace drill`: kills a part of the stack on this machine under load, and shows what callers see of it."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import psutil
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from deploy.local import processes
from deploy.local.home import Home
from deploy.local.record import Stack
from services.cli import calls, output, where
from services.cli.exits import FAILED, UNREACHABLE, CliError, stop
from services.cli.history import History, Kill, Verdict, judge
from services.client import Client, HeadraceError, Sampling

PATIENCE = 300.0  # seconds for a stream; one replica alone has to be replaced before they go on
BEGIN = 120.0  # seconds for all of them to begin
LOOK = 0.1  # seconds between two looks at the streams
TOKENS = {"sim": 1000}  # long enough to be killed in the middle
TOKENS_ELSE = 200


@dataclass(frozen=True, slots=True)
class Wish:
    streams: int
    tokens: int | None
    gateway: bool


def run(wish: Wish, *, as_json: bool) -> None:
    stack = where.load_stack(Home.of(os.environ))
    if stack is None:
        stop("no stack is up on this machine", "Bring one up with `headrace up`.", code=UNREACHABLE)
    target = where.find(stack.endpoint, None)
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)

    async def drilled() -> Verdict:
        async with target.client() as client:
            return await Drill(wish, stack, client, console).run()

    verdict = calls.run(drilled(), target)
    if as_json:
        output.as_json(asdict(verdict) | {"good": verdict.good})
    else:
        print(verdict.line())
    for number, fault in verdict.faults.items():
        print(f"stream {number}: {fault}", file=sys.stderr)
    if not verdict.moved and not verdict.faults:
        print("headrace: no stream ran where something was killed; try again", file=sys.stderr)
    raise typer.Exit(0 if verdict.good else FAILED)


class Drill:
    def __init__(self, wish: Wish, stack: Stack, client: Client, console: Console) -> None:
        self._wish = wish
        self._stack = stack
        self._client = client
        self._console = console
        self._news = asyncio.Event()  # a stream has got an event
        self._tokens = wish.tokens or TOKENS.get(stack.engine, TOKENS_ELSE)

    async def run(self) -> Verdict:
        """Raises CliError if there is nothing to kill, or the streams end before it is killed."""
        if not processes.replicas(self._stack):
            raise CliError("no replica of this stack runs", "See `headrace status`.", code=UNREACHABLE)
        twins = await self._twins()
        self._console.print(f"{self._wish.streams} streams of {self._tokens} tokens begin.")
        histories = [History(number) for number in range(self._wish.streams)]
        reading = [asyncio.create_task(self._read(history)) for history in histories]
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            showing = asyncio.create_task(_show(live, histories))
            try:
                kills = await self._strike(histories)
                await asyncio.gather(*reading)
            finally:
                for task in (*reading, showing):
                    task.cancel()
        self._console.print(_table(histories))
        return judge(histories, self._tokens, twins, kills)

    async def _twins(self) -> list[History]:
        """The same questions with nothing killed, where the answers are certain to be the same."""
        if self._stack.engine != "sim":
            return []
        self._console.print("First the same streams with nothing killed, to compare with.")
        twins = [History(number) for number in range(self._wish.streams)]
        await asyncio.gather(*map(self._read, twins))
        for twin in twins:
            if twin.state != "finished":
                raise CliError(f"a stream does not finish even with nothing killed: {twin.error}")
        return twins

    async def _read(self, history: History) -> None:
        stream = self._client.stream(
            f"Tell story number {history.number}.",
            sampling=Sampling(temperature=0),
            max_tokens=self._tokens,
            ignore_eos=True,
            timeout=PATIENCE,
        )
        try:
            async with stream:
                async for event in stream:
                    history.hear(event, (stream.epoch, stream.seq), time.monotonic())
                    history.resumes = stream.resumes
                    self._news.set()
        except HeadraceError as error:
            history.fail(str(error))
            self._news.set()

    async def _strike(self, histories: list[History]) -> list[Kill]:
        await self._until(lambda: all(h.state != "waiting" for h in histories), BEGIN)
        kills = [await self._kill("replica", processes.replicas, histories)]
        if self._wish.gateway:
            moving = [(history, history.tokens) for history in histories]
            await self._until(lambda: all(h.over or h.tokens > before for h, before in moving), PATIENCE)
            kills.append(await self._kill("gateway worker", processes.workers, histories))
        return kills

    async def _kill(
        self, what: str, find: Callable[[Stack], list[psutil.Process]], histories: list[History]
    ) -> Kill:
        if all(history.over for history in histories):
            raise CliError(f"the streams ended before a {what} was killed", "Try with more --tokens.")
        if not (living := find(self._stack)):
            raise CliError(f"no {what} of this stack runs", "See `headrace status`.")
        gone = await asyncio.to_thread(processes.kill, living[0])
        kill = Kill(what, living[0].pid, gone)
        self._console.print(str(kill))
        return kill

    async def _until(self, reached: Callable[[], bool], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not reached():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            what = f"the streams did not get on within {seconds:.0f} s"
            raise CliError(what, "See `headrace status`.") from None


async def _show(live: Live, histories: list[History]) -> None:
    while True:
        live.update(_table(histories), refresh=live.console.is_terminal)
        await asyncio.sleep(LOOK)


STYLES = {"waiting": "dim", "running": "yellow", "finished": "green", "failed": "red"}


def _table(histories: list[History]) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("STREAM", "STATE", "TOKENS", "LONGEST PAUSE", "MIGRATIONS", "TAKEOVERS", "RECONNECTS"):
        shown.add_column(head, justify="left" if head == "STATE" else "right")
    now = time.monotonic()
    for each in histories:
        moves = (each.usage.migrations, each.usage.takeovers) if each.usage else ("", "")
        state = f"[{STYLES[each.state]}]{each.state}[/]"
        cells = (each.number, state, each.tokens, f"{each.pause_at(now):.2f} s", *moves, each.resumes)
        shown.add_row(*map(str, cells))
    return shown
