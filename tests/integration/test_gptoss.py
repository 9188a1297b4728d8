"""gpt-oss through client, gateway and engine link, with an engine that says what was written down for it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest

from services.client import (
    Client,
    Delta,
    Event,
    Finished,
    HeadraceError,
    JsonSchema,
    Message,
    ReasoningDelta,
    Sampling,
    Tool,
    ToolCallDelta,
    Used,
)
from services.core.request import Scope
from services.telemetry.metrics import MALFORMED
from services.text.harmony.vocabulary import STOP_IDS, encoding
from tests.support.gateway import running_gateway
from tests.support.harmony_streams import ANSWER, BROKEN, CALL, FINAL, THINK
from tests.support.scripted_engine import ScriptedEngine, ids_of

GPT_OSS = "gpt-oss-tiny"
WEATHER = Tool(
    "weather",
    "Weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@asynccontextmanager
async def gptoss(
    *scripts: str, scopes: tuple[Scope, ...] = (), **overrides: object
) -> AsyncIterator[tuple[Client, ScriptedEngine]]:
    engine = ScriptedEngine(list(scripts))
    gateway = running_gateway(model=GPT_OSS, engine=engine, scopes=scopes, **overrides)  # type: ignore[arg-type]
    async with gateway as endpoint, Client(endpoint.address, endpoint.key) as client:
        yield client, engine


async def events_of(client: Client, **wish: object) -> list[Event]:
    return [event async for event in client.stream("Where?", **wish)]  # type: ignore[arg-type]


def prompt_of(engine: ScriptedEngine, at: int = -1) -> str:
    return encoding().decode(engine.requests[at].prompt)


def counted(flaw: str, action: str) -> float:
    return MALFORMED.labels(GPT_OSS, flaw, action)._value.get()


async def test_reasoning_is_counted_and_withheld() -> None:
    async with gptoss(ANSWER) as (client, engine):
        events = await events_of(client)
    assert "".join(e.text for e in events if isinstance(e, Delta)) == "Paris is it."
    assert not [e for e in events if isinstance(e, ReasoningDelta)]
    [used] = [e.usage for e in events if isinstance(e, Used)]
    assert used.reasoning_tokens == len(ids_of("The user wants it."))
    assert used.completion_tokens == len(ids_of(ANSWER)) - 1
    assert isinstance(events[-1], Finished) and events[-1].reason == "stop"
    assert engine.requests[0].stop_ids == STOP_IDS
    assert engine.requests[0].structural_tag == ""


async def test_reasoning_is_delivered_to_a_key_that_may_see_it_and_asks() -> None:
    async with gptoss(ANSWER, ANSWER, scopes=(Scope.REASONING,)) as (client, _):
        events = await events_of(client, reasoning=True)
        assert "".join(e.text for e in events if isinstance(e, ReasoningDelta)) == "The user wants it."
        answer = await client.generate("Where?", reasoning=True)
        assert (answer.message.text, answer.message.reasoning) == ("Paris is it.", "The user wants it.")


async def test_a_key_without_the_scope_is_told_which_one_it_needs() -> None:
    async with gptoss(ANSWER) as (client, engine):
        for wish in ({"reasoning": True}, {"ignore_eos": True}):
            with pytest.raises(HeadraceError, match="needs a key with the scope") as caught:
                await events_of(client, **wish)
            assert (caught.value.code, caught.value.outcome) == (
                grpc.StatusCode.PERMISSION_DENIED,
                "FORBIDDEN",
            )
    assert engine.requests == []


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
async def test_the_effort_asked_for_is_in_the_prompt(effort: str) -> None:
    async with gptoss(ANSWER) as (client, engine):
        await events_of(client, effort=effort)
    assert f"Reasoning: {effort}\n" in prompt_of(engine)


@pytest.mark.parametrize(
    ("efforts", "expected"),
    [({}, "medium"), ({GPT_OSS: "low"}, "low"), ({GPT_OSS: "low", f"acme/{GPT_OSS}": "high"}, "high")],
    ids=["family", "model", "tenant"],
)
async def test_the_default_effort_is_the_tenants_else_the_models(
    efforts: dict[str, str], expected: str
) -> None:
    async with gptoss(ANSWER, efforts=efforts) as (client, engine):
        await events_of(client)
    assert f"Reasoning: {expected}\n" in prompt_of(engine)


async def test_the_operators_date_is_what_the_model_is_told() -> None:
    async with gptoss(ANSWER, conversation_date="2026-01-02") as (client, engine):
        await events_of(client)
    assert "Current date: 2026-01-02\n" in prompt_of(engine)


async def test_a_tool_loop_in_the_callers_hands() -> None:
    async with gptoss(THINK + CALL, FINAL + "Sunny.<|return|>") as (client, engine):
        events = await events_of(client, tools=[WEATHER])
        calls = [e for e in events if isinstance(e, ToolCallDelta)]
        assert [(c.index, c.name) for c in calls if c.id] == [(0, "weather")]
        assert json.loads("".join(c.arguments for c in calls)) == {"city": "Rome"}
        assert isinstance(events[-1], Finished) and events[-1].reason == "tool_calls"

        engine.scripts.insert(0, THINK + CALL)
        asked = await client.generate("Weather?", tools=[WEATHER])
        [call] = asked.message.calls
        history = [Message("user", "Weather?"), asked.message, call.result("25 C")]
        answer = await client.generate(history, tools=[WEATHER])
    assert (answer.message.text, answer.reason) == ("Sunny.", "stop")
    prompt = prompt_of(engine)
    assert 'to=functions.weather <|constrain|>json<|message|>{"city": "Rome"}<|call|>' in prompt
    assert prompt.endswith("<|channel|>commentary to=assistant<|message|>25 C<|end|><|start|>assistant")


async def test_a_session_keeps_reasoning_inside_a_tool_loop_and_drops_it_after() -> None:
    async with gptoss(THINK + CALL, FINAL + "Sunny.<|return|>", FINAL + "Bye.<|return|>") as (client, engine):
        session = await client.sessions.create()
        asked = await client.generate("Weather?", session=session.id, tools=[WEATHER])
        [call] = asked.message.calls
        await client.generate([call.result("25 C")], session=session.id, tools=[WEATHER])
        assert "<|channel|>analysis<|message|>The user wants it.<|end|>" in prompt_of(engine)
        assert prompt_of(engine).startswith(prompt_of(engine, -2))
        await client.generate("Thanks", session=session.id, tools=[WEATHER])
        assert "analysis<|message|>" not in prompt_of(engine)
        assert "<|channel|>final<|message|>Sunny.<|end|>" in prompt_of(engine)
        kept = (await client.sessions.get(session.id)).messages
    assert [m.role for m in kept] == ["user", "assistant", "tool", "assistant", "user", "assistant"]
    assert kept[1].calls == (call,) and kept[1].reasoning == ""  # this key may not see it


async def test_no_tool_is_offered_where_none_is_wanted() -> None:
    async with gptoss(ANSWER) as (client, engine):
        await events_of(client, tools=[WEATHER], tool_choice="none")
    assert "namespace functions" not in prompt_of(engine)


@pytest.mark.parametrize("choice", ["required", "weather"])
async def test_a_demanded_call_is_demanded_of_the_engine(choice: str) -> None:
    other = Tool("other")
    async with gptoss(CALL) as (client, engine):
        answer = await client.generate("Weather?", tools=[WEATHER, other], tool_choice=choice)
    tag = engine.requests[0].structural_tag
    assert answer.reason == "tool_calls"
    assert "functions.weather" in tag and '"final"' not in tag
    assert ("functions.other" in tag) == (choice == "required")


async def test_a_format_reaches_the_prompt_and_the_engine() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    script = THINK + '<|channel|>final <|constrain|>json<|message|>{"city":"Rome"}<|return|>'
    async with gptoss(script) as (client, engine):
        answer = await client.generate("Where?", format=JsonSchema(schema, "city"))
    assert json.loads(answer.message.text) == {"city": "Rome"}
    assert "# Response Formats\n\n## city\n\n" in prompt_of(engine)
    assert json.loads(engine.requests[0].structural_tag)["type"] == "structural_tag"


async def test_a_format_that_the_engine_cannot_follow_is_the_callers_to_change() -> None:
    async with gptoss() as (client, engine):
        engine.rejects = "structural_tag: too many rules"
        with pytest.raises(HeadraceError, match="too many rules") as caught:
            await client.generate("Where?", format=JsonSchema({"type": "object"}))
        assert [v.field for v in caught.value.violations] == ["response_format"]
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_several_answers_come_apart() -> None:
    scripts = [FINAL + f"Answer {i}<|return|>" for i in range(3)]
    async with gptoss(*scripts) as (client, engine):
        events = await events_of(client, n=3, sampling=Sampling(seed=7))
        texts = ["".join(e.text for e in events if isinstance(e, Delta) and e.choice == i) for i in range(3)]
        assert sorted(texts) == ["Answer 0", "Answer 1", "Answer 2"]
        assert isinstance(events[-1], Finished) and [e.reason for e in events[-1].more] == ["stop", "stop"]
        assert sorted(r.seed for r in engine.requests if r.seed is not None) == [7, 8, 9]
        engine.scripts = scripts
        answer = await client.generate("Where?", n=3)
        said = [answer.message.text, *(choice.message.text for choice in answer.more)]
        assert sorted(said) == ["Answer 0", "Answer 1", "Answer 2"]


async def test_log_probabilities_are_of_content_alone() -> None:
    async with gptoss(ANSWER) as (client, _):
        answer = await client.generate("Where?", logprobs=2)
    assert b"".join(score.token for score in answer.logprobs) == b"Paris is it."
    assert all(score.logprob == -0.5 and len(score.top) == 2 for score in answer.logprobs)


async def test_stop_strings_are_sought_in_the_content_alone() -> None:
    async with gptoss(ANSWER) as (client, _):
        answer = await client.generate("Where?", stop=["user", " it"])
    assert (answer.message.text, answer.reason, answer.stop_sequence) == ("Paris is", "stop_sequence", " it")


@pytest.mark.parametrize("flaw", BROKEN)
async def test_an_answer_that_broke_before_anything_was_visible_is_sampled_again(flaw: str) -> None:
    before = counted(flaw, "retried")
    async with gptoss(BROKEN[flaw], ANSWER) as (client, engine):
        events = await events_of(client, tools=[WEATHER])
    assert "".join(e.text for e in events if isinstance(e, Delta)) == "Paris is it."
    assert isinstance(events[-1], Finished) and events[-1].reason == "stop"
    assert counted(flaw, "retried") == before + 1
    first, second = engine.requests
    assert first.prompt == second.prompt
    # The second try cannot break the format: the engine is held to it.
    assert (first.structural_tag, json.loads(second.structural_tag)["type"]) == ("", "structural_tag")
    [used] = [e.usage for e in events if isinstance(e, Used)]
    assert used.completion_tokens == len(ids_of(ANSWER)) - 1


@pytest.mark.parametrize("flaw", BROKEN)
async def test_an_answer_that_breaks_twice_ends_with_a_reason_and_leaks_nothing(flaw: str) -> None:
    before = counted(flaw, "ended")
    async with gptoss(BROKEN[flaw], BROKEN[flaw]) as (client, engine):
        answer = await client.generate("Where?", tools=[WEATHER])
    assert (answer.message.text, answer.reason) == ("", "malformed")
    assert counted(flaw, "ended") == before + 1
    assert len(engine.requests) == 2


async def test_what_was_delivered_stands_and_is_not_sampled_again() -> None:
    preamble = "<|channel|>commentary<|message|>Let me look.<|end|><|start|>assistant"
    async with gptoss(preamble + BROKEN["unknown_tool"]) as (client, engine):
        answer = await client.generate("Where?", tools=[WEATHER])
    assert (answer.message.text, answer.reason) == ("Let me look.", "malformed")
    assert len(engine.requests) == 1


async def test_shown_reasoning_is_not_taken_back() -> None:
    async with gptoss(BROKEN["no_answer"], scopes=(Scope.REASONING,)) as (client, engine):
        answer = await client.generate("Where?", reasoning=True)
    assert (answer.message.reasoning, answer.reason) == ("secret", "malformed")
    assert len(engine.requests) == 1


async def test_a_cut_answer_is_no_broken_one() -> None:
    async with gptoss("<|channel|>analysis<|message|>so much to think") as (client, engine):
        answer = await client.generate("Where?", max_tokens=50)
    assert (answer.message.text, answer.reason) == ("", "length")
    assert len(engine.requests) == 1


async def test_the_models_abilities_are_told() -> None:
    async with gptoss() as (client, _):
        [model] = await client.models()
    assert (model.tools, model.reasoning, model.effort) == (True, True, True)
