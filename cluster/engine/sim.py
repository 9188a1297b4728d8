"""A simulated engine: real scheduling, invented tokens, an exact oracle.

Each token is a function of all tokens before it. So `prompt + tokens so far`, submitted elsewhere,
continues with the same tokens, as greedy decoding does, and a test can name every token of a turn
that moved between replicas.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from cluster.engine.port import (
    Cause,
    Description,
    EngineDead,
    EngineRequest,
    Finished,
    First,
    Load,
    Logprobs,
    RequestRejected,
    StepArrays,
    StepOutput,
)
from cluster.engine.timing import BLOCK_TOKENS, SimTiming, blocks

MASK = 2**64 - 1
MULTIPLIER = 6364136223846793005

# Ids of ordinary words in every byte-level BPE vocabulary that is large enough.
PRINTABLE = range(1000, 9000)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimSettings:
    """`mean_length` > 0 ends turns with their first stop id after about so many tokens, decided by
    the tokens alone; 0 runs every turn to its max_tokens."""

    context_length: int = 131_072
    vocab_size: int = 200_000
    printable: Sequence[int] = PRINTABLE
    mean_length: int = 0
    cached_blocks: int = 65_536  # of the prefix cache, the longest unused leaves first
    timing: SimTiming = field(default_factory=SimTiming)


def fold(state: int, tokens: Iterable[int]) -> int:
    for token in tokens:
        state = (state * MULTIPLIER + token + 1) & MASK
    return state


def generate(prompt: Sequence[int], printable: Sequence[int] = PRINTABLE) -> Iterator[int]:
    """The endless continuation of `prompt`."""
    return continuation(fold(0, prompt), printable)


def continuation(state: int, printable: Sequence[int]) -> Iterator[int]:
    size = len(printable)
    while True:
        # The low bits of a product are weak; the high ones pick.
        token = printable[(state >> 33) % size]
        yield token
        state = (state * MULTIPLIER + token + 1) & MASK


def expected_tokens(prompt: Sequence[int], n: int, printable: Sequence[int] = PRINTABLE) -> list[int]:
    """The first `n` tokens that a SimEngine without `mean_length` answers `prompt` with."""
    return list(islice(generate(prompt, printable), n))


def expected_logprobs(id: int, tokens: Sequence[int], likeliest: int) -> Logprobs:
    """What a SimEngine says of `tokens` sampled by turn `id`: each is the likeliest, as under greedy decoding."""
    sampled = [-(token % 64) / 64 for token in tokens]
    top_ids = [token + rank for token in tokens for rank in range(likeliest)]
    top = [value - rank / 4 for value in sampled for rank in range(likeliest)]
    return Logprobs(id, sampled, top_ids, top)


@dataclass(slots=True)
class Turn:
    request: EngineRequest
    tokens: Iterator[int]
    submitted: float
    stops: frozenset[int]
    blocks: int
    to_prefill: int
    cached: int = 0
    queued_s: float = 0.0
    produced: int = 0


class SimEngine:
    """Engine port with vLLM's queue, batch, block and prefix-cache accounting over invented tokens.

    The public switches are for fault tests: `fail_after_steps` ends the engine, `hang` stops its steps.
    A structural tag is accepted and not followed: the tokens are invented, whatever they spell.
    """

    def __init__(self, settings: SimSettings | None = None) -> None:
        self.settings = settings or SimSettings()
        self.description = Description("sim", self.settings.context_length, self.settings.vocab_size)
        self.fail_after_steps: int | None = None
        self.hang = False
        self._running: dict[int, Turn] = {}
        self._waiting: dict[int, Turn] = {}
        self._prefills: deque[Turn] = deque()
        self._blocks = 0
        self._cache: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._work = asyncio.Event()
        self._steps = 0
        self._closed = False

    async def submit(self, request: EngineRequest) -> None:
        if self._closed:
            raise EngineDead("sim is closed")
        taken = blocks(len(request.prompt), request.max_tokens)
        if taken > self.settings.timing.kv_blocks:
            raise RequestRejected("prompt and max_tokens do not fit into the KV cache")
        state, cached = self._look_up(request)
        self._waiting[request.id] = Turn(
            request=request,
            tokens=continuation(state, self.settings.printable),
            submitted=asyncio.get_running_loop().time(),
            stops=frozenset(request.stop_ids),
            blocks=taken,
            to_prefill=len(request.prompt) - cached,
            cached=cached,
        )
        self._work.set()

    async def cancel(self, ids: Sequence[int]) -> None:
        for id in ids:
            self._waiting.pop(id, None)
            self._release(id)

    async def step(self) -> StepOutput:
        await self._ready()
        if self._steps == self.fail_after_steps:
            self._closed = True
            raise EngineDead("sim failed as told")
        self._admit()
        prefilled = self._prefill()
        await asyncio.sleep(self.settings.timing.step_seconds(len(self._running), prefilled))
        self._steps += 1
        return self._decode()

    def load(self) -> Load:
        return Load(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_use=self._blocks / self.settings.timing.kv_blocks,
            queued_tokens=sum(turn.to_prefill for turn in (*self._waiting.values(), *self._prefills)),
            steps=self._steps,
        )

    async def close(self) -> None:
        self._closed = True
        self._work.set()

    def resume(self) -> None:
        """End a `hang`."""
        self.hang = False
        self._work.set()

    async def _ready(self) -> None:
        while self.hang or not (self._running or self._waiting or self._closed):
            self._work.clear()
            await self._work.wait()
        if self._closed:
            raise EngineDead("sim is closed")

    def _look_up(self, request: EngineRequest) -> tuple[int, int]:
        """Fold the prompt block by block; count the leading tokens whose blocks are cached."""
        state, cached, hit = 0, 0, True
        prompt, cache = request.prompt, self._cache
        for start in range(0, len(prompt), BLOCK_TOKENS):
            block = prompt[start : start + BLOCK_TOKENS]
            state = fold(state, block)
            if len(block) == BLOCK_TOKENS:
                key = (request.cache_salt, state)
                hit = hit and key in cache
                cached += BLOCK_TOKENS if hit else 0
                cache[key] = None
                cache.move_to_end(key)
        while len(cache) > self.settings.cached_blocks:
            cache.popitem(last=False)
        # The last prompt token is always computed: its logits give the first token.
        return state, min(cached, len(prompt) - 1)

    def _admit(self) -> None:
        timing, now = self.settings.timing, asyncio.get_running_loop().time()
        while self._waiting and len(self._running) < timing.max_num_seqs:
            turn = next(iter(self._waiting.values()))
            if self._blocks + turn.blocks > timing.kv_blocks:
                return
            id = turn.request.id
            self._running[id] = self._waiting.pop(id)
            self._blocks += turn.blocks
            turn.queued_s = now - turn.submitted
            self._prefills.append(turn)

    def _prefill(self) -> int:
        """Spend this step's token budget on prompts, oldest first; return the tokens computed."""
        budget = self.settings.timing.max_batch_tokens
        left = budget
        while self._prefills and left > 0:
            turn = self._prefills[0]
            part = min(left, turn.to_prefill)
            turn.to_prefill -= part
            left -= part
            if turn.to_prefill == 0:
                self._prefills.popleft()
        return budget - left

    def _decode(self) -> StepOutput:
        arrays = StepArrays()
        ids, tokens = arrays.ids, arrays.tokens
        for id, turn in list(self._running.items()):
            if turn.to_prefill:
                continue
            if turn.produced == 0:
                arrays.firsts.append(First(id, turn.cached, int(turn.queued_s * 1e6)))
            token = self._next(turn)
            turn.produced += 1
            if token in turn.stops:
                arrays.finishes.append(Finished(id, Cause.STOP, stop_id=token))
                self._release(id)
                continue
            ids.append(id)
            tokens.append(token)
            if (likeliest := turn.request.logprobs) is not None:
                arrays.logprobs.append(expected_logprobs(id, (token,), likeliest))
            if turn.produced >= turn.request.max_tokens:
                arrays.finishes.append(Finished(id, Cause.LENGTH))
                self._release(id)
        return arrays.freeze()

    def _next(self, turn: Turn) -> int:
        token = next(turn.tokens)
        if not turn.stops:
            return token
        if turn.produced < turn.request.min_tokens:
            while token in turn.stops:
                token = next(turn.tokens)
            return token
        ends = self.settings.mean_length and token * MULTIPLIER % MASK % self.settings.mean_length == 0
        return turn.request.stop_ids[0] if ends else token

    def _release(self, id: int) -> None:
        if (turn := self._running.pop(id, None)) is not None:
            self._blocks -= turn.blocks
            if turn.to_prefill:
                self._prefills.remove(turn)
