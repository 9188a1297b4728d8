import pytest

from cluster.engine.port import Cause, EngineDead, EngineRequest, StepOutput
from cluster.engine.sim import PRINTABLE, SimEngine, SimSettings, SimTiming, expected_tokens

FAST = SimTiming(scale=0.0)
PROMPT = [5, 6, 7, 8]


def sim(**settings: object) -> SimEngine:
    return SimEngine(SimSettings(timing=FAST, **settings))  # type: ignore[arg-type]


async def run(engine: SimEngine, *requests: EngineRequest) -> tuple[dict[int, list[int]], dict[int, Cause]]:
    for request in requests:
        await engine.submit(request)
    tokens: dict[int, list[int]] = {request.id: [] for request in requests}
    ends: dict[int, Cause] = {}
    while len(ends) < len(requests):
        step = await engine.step()
        for id, token in zip(step.ids, step.tokens, strict=True):
            tokens[id].append(token)
        ends |= {end.id: end.cause for end in step.finishes}
    return tokens, ends


def test_tokens_are_printable_and_vary() -> None:
    tokens = expected_tokens(PROMPT, 500)
    assert set(tokens) <= set(PRINTABLE)
    assert len(set(tokens)) > 400


def test_a_continued_prompt_goes_on_with_the_same_tokens() -> None:
    whole = expected_tokens(PROMPT, 50)
    assert expected_tokens([*PROMPT, *whole[:20]], 30) == whole[20:]


async def test_the_engine_answers_with_the_oracle() -> None:
    long = EngineRequest(id=1, prompt=PROMPT, max_tokens=40)
    short = EngineRequest(id=2, prompt=[9], max_tokens=3)
    tokens, ends = await run(sim(), long, short)
    assert tokens == {1: expected_tokens(PROMPT, 40), 2: expected_tokens([9], 3)}
    assert ends == {1: Cause.LENGTH, 2: Cause.LENGTH}


async def test_a_sampled_stop_id_ends_the_turn_undelivered() -> None:
    whole = expected_tokens(PROMPT, 10)
    tokens, ends = await run(sim(), EngineRequest(id=1, prompt=PROMPT, max_tokens=10, stop_ids=(whole[4],)))
    assert tokens[1] == whole[:4]
    assert ends[1] is Cause.STOP


async def test_stop_ids_are_not_sampled_before_min_tokens() -> None:
    whole = expected_tokens(PROMPT, 10)
    request = EngineRequest(id=1, prompt=PROMPT, max_tokens=10, min_tokens=8, stop_ids=(whole[4],))
    tokens, _ = await run(sim(), request)
    assert len(tokens[1]) >= 8
    assert whole[4] not in tokens[1]


async def test_scripted_ends_depend_on_the_tokens_alone() -> None:
    request = EngineRequest(id=1, prompt=PROMPT, max_tokens=1000, stop_ids=(2,))
    tokens, ends = await run(sim(mean_length=20), request)
    assert ends[1] is Cause.STOP
    half = len(tokens[1]) // 2
    moved = EngineRequest(id=1, prompt=[*PROMPT, *tokens[1][:half]], max_tokens=1000, stop_ids=(2,))
    assert (await run(sim(mean_length=20), moved))[0][1] == tokens[1][half:]


async def test_cancel_frees_the_blocks() -> None:
    engine = sim()
    await engine.submit(EngineRequest(id=1, prompt=PROMPT, max_tokens=1000))
    await engine.step()
    assert engine.load().kv_use > 0
    await engine.cancel([1])
    assert engine.load().kv_use == 0
    assert engine.load().running == 0


async def test_a_full_batch_lets_the_rest_wait() -> None:
    engine = SimEngine(SimSettings(timing=SimTiming(scale=0.0, max_num_seqs=2)))
    for id in range(5):
        await engine.submit(EngineRequest(id=id, prompt=PROMPT, max_tokens=10))
    await engine.step()
    load = engine.load()
    assert (load.running, load.waiting, load.queued_tokens) == (2, 3, 12)


async def test_a_repeated_prompt_is_cached_within_its_salt() -> None:
    engine, prompt = sim(), list(range(64))

    async def cached(id: int, salt: str) -> int:
        await engine.submit(EngineRequest(id=id, prompt=prompt, max_tokens=1, cache_salt=salt))
        step: StepOutput = await engine.step()
        return step.firsts[0].cached_tokens

    assert [await cached(1, "a"), await cached(2, "a"), await cached(3, "b")] == [0, 63, 0]


async def test_it_dies_when_told() -> None:
    engine = sim()
    engine.fail_after_steps = 2
    with pytest.raises(EngineDead):
        await run(engine, EngineRequest(id=1, prompt=PROMPT, max_tokens=10))
