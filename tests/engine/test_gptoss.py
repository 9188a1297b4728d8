"""The tiny gpt-oss on a real engine: grammars, log probabilities, scripted streams."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai_harmony
import pytest
import pytest_asyncio
from jsonschema import validate
from vllm.v1.engine.async_llm import AsyncLLM

from cluster.engine.port import FLOOR, Cause, EngineRequest, RequestRejected
from cluster.engine.reference import ReferenceEngine
from cluster.engine.vllm import VllmEngine, open_llm
from services.client import Client, HeadraceError, JsonSchema, Message, Options, Regex, Tool
from tests.engine.test_vllm_port import Outcome, greedy, reference, run
from tests.support.engine_gptoss import gptoss_settings, write_scripts
from tests.support.gateway import running_gateway
from tests.support.harmony_streams import ANSWER, BROKEN, MENDED, THINK
from tests.support.harmony_streams import CALL as CALL_WEATHER
from tests.support.harmony_streams import FINAL as FINAL_MESSAGE
from tests.support.random_weights import whole
from tests.support.structural_tags import (
    CALL,
    CALLS,
    CHANNEL,
    CONSTRAIN,
    END,
    FINAL,
    MESSAGE,
    RETURN,
    START,
    WEATHER,
    const,
    schema,
    sequence,
    tag,
    token,
)

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

ENCODING = openai_harmony.load_harmony_encoding("HarmonyGptOss")
PROMPT = ENCODING.encode("<|start|>user<|message|>hi<|end|><|start|>assistant", allowed_special="all")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def llm(scratch: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncLLM]:
    settings = gptoss_settings(scripts(tmp_path_factory))
    llm = await asyncio.to_thread(open_llm, settings)
    yield llm
    await asyncio.to_thread(llm.shutdown)


def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp() / "scripts.json"


def structured(id: int, format: Any, **fields: Any) -> EngineRequest:
    values = {"prompt": PROMPT, "max_tokens": 200, "stop_ids": (RETURN,), "seed": id} | fields
    return EngineRequest(id=id, structural_tag=tag(format), **values)


def messages(outcome: Outcome, id: int) -> list[openai_harmony.Message]:
    """What a strict reader of harmony makes of a turn."""
    tokens = [*outcome.tokens[id], outcome.ends[id].stop_id]
    return ENCODING.parse_messages_from_completion_tokens(tokens, openai_harmony.Role.ASSISTANT)


def text(outcome: Outcome, id: int) -> str:
    return ENCODING.decode(outcome.tokens[id])


async def test_random_weights_follow_a_schema_behind_free_analysis(llm: AsyncLLM) -> None:
    outcome = await run(VllmEngine(llm), *(structured(id, FINAL) for id in range(1, 17)))
    assert [text(outcome, id) for id, end in outcome.ends.items() if end.cause is not Cause.STOP] == []
    channels = set()
    for id in outcome.ends:
        *thoughts, final = messages(outcome, id)
        channels |= {thought.channel for thought in thoughts}
        assert final.channel == "final"
        validate(json.loads(final.content[0].text), WEATHER)
    assert channels <= {"analysis"}


def after(first: EngineRequest, said: list[int], cut: int) -> EngineRequest:
    """The order that another replica gets when the first one is lost after so many ids."""
    prompt, left = [*first.prompt, *said[:cut]], first.max_tokens - cut
    return replace(first, id=1000 * first.id + cut, prompt=prompt, max_tokens=left, continued=cut)


async def test_an_answer_goes_on_in_its_grammar_wherever_it_is_cut(llm: AsyncLLM) -> None:
    engine = VllmEngine(llm)
    firsts = {id: structured(id, FINAL) for id in (1, 2, 3)}
    outcome = await run(engine, *firsts.values())
    said = {id: outcome.tokens[id] for id in firsts}
    seconds = {
        id: [after(firsts[id], ids, cut) for cut in sorted({1, len(ids), *range(2, len(ids), 7)})]
        for id, ids in said.items()
    }
    moved = await run(engine, *(second for some in seconds.values() for second in some))
    for id, some in seconds.items():
        for second in some:
            assert moved.ends[second.id].cause is Cause.STOP
            rest = [*moved.tokens.get(second.id, []), moved.ends[second.id].stop_id]
            whole = [*said[id][: second.continued], *rest]
            *_, final = ENCODING.parse_messages_from_completion_tokens(whole, openai_harmony.Role.ASSISTANT)
            validate(json.loads(final.content[0].text), WEATHER)


@pytest.mark.parametrize("name", ["stepwise", "reference"])
async def test_an_output_that_its_grammar_refuses_is_rejected_alone(llm: AsyncLLM, name: str) -> None:
    request = structured(1, FINAL, prompt=[*PROMPT, CALL], continued=1)
    free = greedy(2, PROMPT, max_tokens=10)
    if name == "stepwise":
        outcome = await run(VllmEngine(llm), request, free)
    else:
        async with reference(llm) as engine:
            outcome = await run(engine, request, free)
    assert outcome.ends[1].cause is Cause.REJECTED and "refuses" in outcome.ends[1].detail
    assert outcome.ends[2].cause is Cause.LENGTH


async def test_random_weights_make_one_of_the_calls(llm: AsyncLLM) -> None:
    requests = [structured(id, CALLS, stop_ids=(CALL,)) for id in range(1, 17)]
    outcome = await run(VllmEngine(llm), *requests)
    called = set()
    for id, end in outcome.ends.items():
        assert (end.cause, end.stop_id) == (Cause.STOP, CALL)
        *_, last = messages(outcome, id)
        assert last.channel == "commentary"
        called.add(last.recipient)
        arguments = json.loads(last.content[0].text)
        validate(arguments, WEATHER if last.recipient == "functions.weather" else {"enum": [{}]})
    assert called <= {"functions.weather", "functions.now"}


async def test_formats_of_plain_chat_models(llm: AsyncLLM) -> None:
    engine = VllmEngine(llm)
    choice = {"type": "or", "elements": [const("yes"), const("no"), const("yes, please")]}
    requests = [structured(id, choice) for id in range(1, 5)]
    requests += [structured(id, {"type": "regex", "pattern": "[A-Z]{2}-[0-9]{3,5}"}) for id in range(5, 9)]
    requests += [structured(id, schema(WEATHER)) for id in range(9, 13)]
    outcome = await run(engine, *requests)
    assert {text(outcome, id) for id in range(1, 5)} <= {"yes", "no", "yes, please"}
    for id in range(5, 9):
        assert pytest.importorskip("re").fullmatch("[A-Z]{2}-[0-9]{3,5}", text(outcome, id))
    for id in range(9, 13):
        validate(json.loads(text(outcome, id)), WEATHER)


async def test_both_adapters_tell_the_same_log_probabilities(llm: AsyncLLM) -> None:
    def requests(salt: str) -> list[EngineRequest]:
        return [greedy(id, PROMPT, max_tokens=8, logprobs=3 * id, cache_salt=salt * 64) for id in (0, 1, 2)]

    # One at a time and with nothing cached: in bfloat16 a batch rounds differently.
    stepwise = [await run(VllmEngine(llm), request) for request in requests("a")]
    async with reference(llm) as engine:
        expected = [await run(engine, request) for request in requests("b")]
    for id, likeliest in ((0, 0), (1, 3), (2, 6)):
        told = stepwise[id].logprobs[id]
        assert stepwise[id].tokens == expected[id].tokens
        assert told == expected[id].logprobs[id]
        assert (len(told.sampled), len(told.top)) == (8, 8 * likeliest)
        assert all(FLOOR <= value <= 0 for value in (*told.sampled, *told.top))
        if likeliest:
            # Greedy: none is likelier than the sampled one. In bfloat16 two often are alike.
            assert told.top[::likeliest] == told.sampled
    plain = await run(
        VllmEngine(llm), greedy(4, PROMPT, max_tokens=2), greedy(5, PROMPT, max_tokens=2, logprobs=1)
    )
    assert plain.logprobs.keys() == {5}


async def test_a_masked_out_token_has_the_floor(llm: AsyncLLM) -> None:
    outcome = await run(VllmEngine(llm), structured(1, const("yes"), logprobs=20))
    assert min(outcome.logprobs[1].top) == FLOOR
    assert len(outcome.logprobs[1].sampled) == len(outcome.tokens[1])


SCRIPTS = {
    "plain": [ENCODING.encode("<|channel|>final<|message|>done", allowed_special="all")],
    "call": [
        [*ENCODING.encode("<|channel|>commentary to=functions.f<|message|>{}", allowed_special="all"), CALL]
    ],
    "malformed": [[MESSAGE, MESSAGE, CHANNEL, START, END, 0, 201_087, 199_999]],
    "empty": [[]],
    "twice": [[1, 2, 3], [4, 5, 6]],
}


def scripted(id: int, name: str, **fields: Any) -> EngineRequest:
    prompt = ENCODING.encode(f"tell #script:{name}# now")
    return EngineRequest(
        id=id, prompt=prompt, **({"max_tokens": 60, "stop_ids": (RETURN, 199_999, CALL)} | fields)
    )


async def test_scripts_come_out_as_written(llm: AsyncLLM, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_scripts(scripts(tmp_path_factory), **SCRIPTS)
    engine = VllmEngine(llm)
    names = ["plain", "call", "malformed", "empty"]
    free = greedy(9, PROMPT, max_tokens=20)
    outcome = await run(engine, *(scripted(id, name, temperature=1.7) for id, name in enumerate(names)), free)
    for id, name in enumerate(names):
        said = [*outcome.tokens.get(id, []), outcome.ends[id].stop_id]
        script = SCRIPTS[name][0]
        assert said == (script if script and script[-1] in (199_999, CALL) else [*script, RETURN])
    assert len(outcome.tokens[9]) == 20
    assert outcome.tokens[9] == (await run(engine, free)).tokens[9]
    for attempt in ([1, 2, 3], [4, 5, 6], [4, 5, 6]):
        assert (await run(engine, scripted(1, "twice"))).tokens[1] == attempt


async def test_a_token_that_the_grammar_refuses_ends_the_turn(
    llm: AsyncLLM, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_scripts(scripts(tmp_path_factory), stray=[[1, 2, 3]])
    astray = scripted(1, "stray", structural_tag=tag(const("yes")))
    outcome = await run(VllmEngine(llm), astray, greedy(2, PROMPT, max_tokens=30))
    assert outcome.ends[1].cause is Cause.ENGINE
    assert outcome.ends[2].cause is Cause.LENGTH


async def test_a_tag_that_nothing_satisfies_ends_its_turn_alone(llm: AsyncLLM) -> None:
    endless = {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    requests = [structured(1, schema(endless)), structured(2, sequence(const("a"), token(201_000)))]
    outcome = await run(VllmEngine(llm), *requests, greedy(3, PROMPT, max_tokens=30))
    assert {outcome.ends[1].cause, outcome.ends[2].cause} == {Cause.ENGINE}
    assert outcome.ends[3].cause is Cause.LENGTH


async def test_stop_ids_are_the_requests_alone(
    llm: AsyncLLM, tmp_path_factory: pytest.TempPathFactory
) -> None:
    write_scripts(scripts(tmp_path_factory), ends=[[5, RETURN]])
    engine = VllmEngine(llm)
    outcome = await run(engine, scripted(1, "ends", stop_ids=(), max_tokens=6))
    assert outcome.tokens[1] == [5, *[RETURN] * 5]
    # The end token of the checkpoint does not end a grammar that the turn does not end with.
    outcome = await run(engine, structured(2, const("yes"), stop_ids=(CALL,), min_tokens=1))
    assert (text(outcome, 2), outcome.ends[2].stop_id) == ("yes", CALL)


async def test_markers_keep_their_ids_from_one_grammar_to_the_next(llm: AsyncLLM) -> None:
    engine = VllmEngine(llm)
    for marker in (MESSAGE, CHANNEL, CONSTRAIN):
        outcome = await run(engine, structured(1, sequence(const("x"), token(marker), const("y"))))
        assert outcome.tokens[1][1] == marker
        assert outcome.ends[1].cause is Cause.STOP


HOSTILE: dict[str, Any] = {
    "no stop ids": (schema(True), ()),
    "unbalanced pattern": {"type": "regex", "pattern": "(["},
    "lookahead": {"type": "regex", "pattern": "(?=a)b"},
    "back reference": {"type": "regex", "pattern": r"(a)\1"},
    "empty pattern": {"type": "regex", "pattern": ""},
    "endless repetition": {"type": "regex", "pattern": "a{1,1000000000}"},
    "nested stars": {"type": "regex", "pattern": "([a-z]+)*[a-z]+"},
    "optional dots": {"type": "regex", "pattern": ".?" * 8},
    "long string": schema({"type": "string", "maxLength": 1000}),
    "nested repetition": {"type": "regex", "pattern": "((([a-z]{1,30}){1,30}){1,30}){1,30}"},
    "missing reference": schema({"$ref": "#/$defs/none"}),
    "empty enum": schema({"enum": []}),
    "false": schema(False),
    "huge bound": schema({"type": "array", "items": {}, "minItems": 10**30}),
    "pattern with a length": schema({"type": "string", "pattern": "a+", "maxLength": 3}),
    "unknown format": schema({"type": "string", "format": "nope"}),
    "white space": {"type": "json_schema", "json_schema": {}, "max_whitespace_cnt": 0},
    "left recursion": {"type": "grammar", "grammar": 'root ::= root root | "a" | root'},
    "wide object": schema(
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(2000)}}
    ),
    "any order": schema(WEATHER) | {"style": "nope"},
}


async def test_hostile_grammars_are_rejected_alone(llm: AsyncLLM) -> None:
    engine = VllmEngine(llm)
    await engine.submit(greedy(99, PROMPT, max_tokens=30))
    for id, (name, hostile) in enumerate(HOSTILE.items()):
        format, stops = hostile if isinstance(hostile, tuple) else (hostile, (RETURN,))
        with pytest.raises(RequestRejected, match=r"^structural_tag [^\n]+$"):
            await engine.submit(structured(id, format, stop_ids=stops))
            pytest.fail(f"{name} was taken")
    assert (await run(engine)).ends == {}
    outcome = await run(engine, structured(100, const("yes")))
    assert text(outcome, 100) == "yes"


async def test_the_reference_rejects_them_too(llm: AsyncLLM) -> None:
    async with reference(llm) as engine:
        assert isinstance(engine, ReferenceEngine)
        outcome = await run(
            engine, structured(1, HOSTILE["missing reference"]), structured(2, HOSTILE["lookahead"])
        )
    assert {end.cause for end in outcome.ends.values()} == {Cause.REJECTED}


async def test_a_turn_that_is_cancelled_while_its_tag_is_checked_never_starts(llm: AsyncLLM) -> None:
    engine = VllmEngine(llm)
    submitting = asyncio.create_task(engine.submit(structured(1, FINAL)))
    await asyncio.sleep(0)
    assert engine.load().waiting == 1
    await engine.cancel([1])
    await submitting
    assert engine.load().waiting == 0
    assert (await run(engine, greedy(2, PROMPT, max_tokens=5))).tokens.keys() == {2}


@asynccontextmanager
async def endpoint(llm: AsyncLLM, **scopes: Any) -> AsyncIterator[Client]:
    """Gateway and client before the real engine and its link."""
    gateway = running_gateway(model="gpt-oss-tiny", engine=VllmEngine(llm), capacity=32, **scopes)
    async with gateway as there, Client(there.address, there.key) as client:
        yield client


def script(tmp_path_factory: pytest.TempPathFactory, name: str, *attempts: str) -> str:
    """A question that the engine answers with these attempts."""
    said = [ENCODING.encode(attempt, allowed_special="all") for attempt in attempts]
    write_scripts(scripts(tmp_path_factory), **{name: said})
    return f"#script:{name}#"


@pytest.mark.parametrize("flaw", BROKEN)
async def test_a_broken_answer_is_sampled_again_for_the_client(
    llm: AsyncLLM, tmp_path_factory: pytest.TempPathFactory, flaw: str
) -> None:
    good = FINAL_MESSAGE + "Paris is it.<|return|>"
    once = script(tmp_path_factory, f"once-{flaw}", BROKEN[flaw], good)
    twice = script(tmp_path_factory, f"twice-{flaw}", BROKEN[flaw])
    async with endpoint(llm) as client:
        answer = await client.generate(once, max_tokens=200)
        assert (answer.message.text, answer.reason) == ("Paris is it.", "stop")
        # The second time the script breaks the grammar as well, so the engine ends the turn.
        try:
            answer = await client.generate(twice, max_tokens=200)
        except HeadraceError as error:
            assert error.outcome == "ENGINE_LOST"
        else:
            assert (answer.message.text, answer.reason) == ("", "malformed")


@pytest.mark.parametrize("flaw", MENDED)
async def test_an_answer_that_can_be_read_is_read(
    llm: AsyncLLM, tmp_path_factory: pytest.TempPathFactory, flaw: str
) -> None:
    question = script(tmp_path_factory, f"mended-{flaw}", MENDED[flaw])
    async with endpoint(llm) as client:
        answer = await client.generate(question, max_tokens=200)
    assert (answer.message.text, answer.reason) == ("Paris is it.", "stop")


async def test_a_scripted_tool_loop_goes_through_everything(
    llm: AsyncLLM, tmp_path_factory: pytest.TempPathFactory
) -> None:
    weather = Tool("weather", "", {"type": "object", "properties": {"city": {"type": "string"}}})
    question = script(tmp_path_factory, "loop", THINK + CALL_WEATHER, ANSWER)
    async with endpoint(llm) as client:
        asked = await client.generate(question, tools=[weather], max_tokens=200)
        [call] = asked.message.calls
        assert (call.name, json.loads(call.arguments), asked.reason) == (
            "weather",
            {"city": "Rome"},
            "tool_calls",
        )
        said = [Message("user", question), asked.message, call.result("sunny")]
        answer = await client.generate(said, tools=[weather], max_tokens=200)
    assert (answer.message.text, answer.reason, answer.usage.reasoning_tokens) == ("Paris is it.", "stop", 5)


async def test_random_weights_answer_a_client_in_the_form_it_demands(llm: AsyncLLM) -> None:
    tools = [Tool("loud", "", WEATHER, strict=True), Tool("quiet")]
    async with endpoint(llm) as client:
        answer = await whole(client, "Where?", format=JsonSchema(WEATHER))
        validate(json.loads(answer.message.text), WEATHER)
        answer = await whole(client, "Which?", format=Options(("yes", "no")))
        assert answer.message.text in ("yes", "no")
        answer = await whole(client, "Code?", format=Regex("[A-Z]{2}-[0-9]{3}"))
        assert re.fullmatch("[A-Z]{2}-[0-9]{3}", answer.message.text)
        answer = await whole(client, "Call!", tools=tools, tool_choice="loud")
        [call] = answer.message.calls
        validate(json.loads(call.arguments), WEATHER)
        answer = await whole(client, "Call!", tools=tools, tool_choice="required")
        assert answer.message.calls and answer.reason == "tool_calls"


async def test_a_format_that_would_stall_the_engine_is_refused_by_field(llm: AsyncLLM) -> None:
    async with endpoint(llm) as client:
        with pytest.raises(HeadraceError, match="response_format") as refused:
            await client.generate("Where?", format=Regex("((a{1,9}){1,9}){1,9}"))
    assert refused.value.code.name == "INVALID_ARGUMENT"
