"""gpt-oss in two shards on Ray Serve, by the client: random weights, so answers are judged by their form."""

import json
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from jsonschema import validate

from services.client import (
    Client,
    Delta,
    Event,
    Finished,
    HeadraceError,
    JsonSchema,
    Options,
    ReasoningDelta,
    Regex,
    Sampling,
    Started,
    Tool,
    Used,
)
from tests.support.random_weights import whole
from tests.support.up import Up, running_stack, until_served

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(420),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="each shard needs a core of its own"),
]

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = Tool("weather", "Weather of a city.", SCHEMA, strict=True)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    words = ("--model", "gpt-oss-tiny", "--tensor-parallel", "2")
    with running_stack(tmp_path_factory.mktemp("headrace"), *words) as up:
        yield up


@pytest.fixture
async def client(stack: Up) -> AsyncIterator[Client]:
    async with stack.client() as client:
        yield client


def test_two_shards_serve(stack: Up) -> None:
    assert len(stack.engine_processes("VLLM::Worker_TP")) == 2
    listed = stack.run("models")
    assert "gpt-oss-tiny" in listed.stdout and "tools reasoning effort" in listed.stdout


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
async def test_every_effort_is_answered_with_typed_events(client: Client, effort: Any) -> None:
    events: list[Event] = []
    async for event in client.stream("Hello", effort=effort, reasoning=True, max_tokens=40):
        events.append(event)
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
    assert isinstance(events[-2], Used) and 0 < events[-2].usage.completion_tokens <= 40
    assert {type(event) for event in events[1:-2]} <= {Delta, ReasoningDelta}
    assert events[-1].reason in ("length", "malformed", "stop")


async def test_a_json_schema_is_followed(client: Client) -> None:
    answer = await whole(client, "Where?", format=JsonSchema(SCHEMA, "trip"))
    validate(json.loads(answer.message.text), SCHEMA)


async def test_a_regex_and_options_are_followed(client: Client) -> None:
    answer = await whole(client, "Code?", format=Regex("[A-Z]{2}-[0-9]{3}"))
    assert re.fullmatch("[A-Z]{2}-[0-9]{3}", answer.message.text)
    answer = await whole(client, "Which?", format=Options(("yes", "no")))
    assert answer.message.text in ("yes", "no")


async def test_a_tool_loop_in_a_session(client: Client) -> None:
    for seed in range(60):
        session = await client.sessions.create()
        wish: Any = {"session": session.id, "tools": [WEATHER], "max_tokens": 60}
        sampling = Sampling(seed=seed, temperature=2.0)
        asked = await client.generate("Weather?", tool_choice="required", sampling=sampling, **wish)
        if asked.reason == "tool_calls":
            break
    [call] = asked.message.calls
    validate(json.loads(call.arguments), SCHEMA)
    answer = await client.generate([call.result("25 C")], **wish)
    assert answer.session_version == 3
    kept = (await client.sessions.get(session.id)).messages
    assert [message.role for message in kept] == ["user", "assistant", "tool", "assistant"]
    assert kept[1].calls == (call,)


def test_the_command_holds_an_answer_to_a_schema(stack: Up, tmp_path: Any) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps({"enum": ["red", "green"]}))
    for _ in range(30):
        said = stack.run(
            "chat",
            "--schema",
            str(file),
            "--effort",
            "low",
            "--max-tokens",
            "25",
            "--temperature",
            "2",
            "Colour?",
        )
        assert said.returncode == 0, said.stderr
        if "cut at the token limit" not in said.stderr:
            break
    assert json.loads(said.stdout) in ("red", "green")


async def test_a_hostile_format_is_refused_and_the_engine_goes_on(client: Client) -> None:
    with pytest.raises(HeadraceError) as refused:
        await client.generate("x", format=Regex("((a{1,9}){1,9}){1,9}"))
    assert [violation.field for violation in refused.value.violations] == ["response_format"]
    assert (await client.generate("x", max_tokens=3)).usage.completion_tokens > 0


async def test_a_lost_shard_is_no_half_alive_replica(stack: Up, client: Client) -> None:
    """The turn goes on with the replacement, which here takes about as long as a turn waits for one: else it is told
    so."""
    shards = stack.engine_processes("VLLM::Worker_TP")
    moves = -1
    try:
        async for event in client.stream("Tell me", reasoning=True, max_tokens=500, timeout=240):
            if isinstance(event, Delta | ReasoningDelta) and shards[1].is_running():
                os.kill(shards[1].pid, signal.SIGKILL)
            if isinstance(event, Used):
                moves = event.usage.migrations
    except HeadraceError as lost:
        assert lost.outcome in ("ENGINE_LOST", "NO_REPLICA")
    else:
        assert moves == 1 and not shards[1].is_running()
    await until_served(client, 240)
    now = stack.engine_processes("VLLM::Worker_TP")
    assert len(now) == 2 and not {one.pid for one in now} & {one.pid for one in shards}
