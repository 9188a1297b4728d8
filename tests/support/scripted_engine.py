"""An engine that says what a test wrote down, token by token: for answers of which every id matters."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.engine.port import (
    Cause,
    Description,
    EngineRequest,
    Finished,
    First,
    Load,
    Logprobs,
    RequestRejected,
    StepArrays,
    StepOutput,
)
from services.text.harmony.vocabulary import encoding

END_OF_TEXT = 199999


def ids_of(text: str) -> list[int]:
    """Control tokens are recognised."""
    ids: list[int] = encoding().encode(text, allowed_special="all")
    return ids


@dataclass(slots=True)
class Spoken:
    request: EngineRequest
    left: list[int]
    begun: bool = False


@dataclass
class ScriptedEngine:
    """Answers orders in the order of their coming, one token a step. A script that a stop id does not end
    runs into max_tokens. `rejects` is the reason to reject every order that has a structural tag."""

    scripts: list[str] = field(default_factory=list)
    rejects: str = ""
    requests: list[EngineRequest] = field(default_factory=list)
    description: Description = field(default_factory=lambda: Description("scripted", 131_072, 201_088))

    def __post_init__(self) -> None:
        self._turns: dict[int, Spoken] = {}
        self._work = asyncio.Event()
        self._steps = 0

    async def submit(self, request: EngineRequest) -> None:
        self.requests.append(request)
        if self.rejects and request.structural_tag:
            raise RequestRejected(self.rejects)
        script = ids_of(self.scripts.pop(0)) if self.scripts else [END_OF_TEXT]
        self._turns[request.id] = Spoken(request, script)
        self._work.set()

    async def cancel(self, ids: Sequence[int]) -> None:
        for id in ids:
            self._turns.pop(id, None)

    async def step(self) -> StepOutput:
        while not self._turns:
            self._work.clear()
            await self._work.wait()
        await asyncio.sleep(0)
        self._steps += 1
        arrays = StepArrays()
        for id, turn in list(self._turns.items()):
            self._speak(id, turn, arrays)
        return arrays.freeze()

    def _speak(self, id: int, turn: Spoken, arrays: StepArrays) -> None:
        if not turn.begun:
            turn.begun = True
            arrays.firsts.append(First(id, 0, 0))
        if not turn.left:
            arrays.finishes.append(Finished(id, Cause.LENGTH))
            del self._turns[id]
            return
        token = turn.left.pop(0)
        if token in turn.request.stop_ids:
            arrays.finishes.append(Finished(id, Cause.STOP, stop_id=token))
            del self._turns[id]
            return
        if (k := turn.request.logprobs) is not None:
            alternatives = [token, *range(1000, 1000 + k)][:k]
            arrays.logprobs.append(Logprobs(id, [-0.5], alternatives, [-0.5 - i for i in range(k)]))
        arrays.extend(id, [token])

    def load(self) -> Load:
        return Load(running=len(self._turns), steps=self._steps)

    async def close(self) -> None:
        self._turns.clear()
