"""Reasoning is for keys of that scope and turns that asked for it, however and wherever the turn is read."""

import pytest

from services.api.headrace.v1 import inference_pb2 as pb
from services.core.request import Scope
from tests.support.gateway import ask, mint_key
from tests.support.gateways import Gateway, rest, running_gateways
from tests.support.harmony_streams import ANSWER
from tests.support.scripted_engine import ScriptedEngine

THOUGHT = "The user wants it."


async def reasoning_read(gateway: Gateway, turn: str, key: str) -> set[str]:
    """Everything of it that this key is told, by every call that reads a turn."""
    inference, auth = gateway.endpoint.inference, (("authorization", f"Bearer {key}"),)
    events = await rest(inference.ResumeTurn(pb.ResumeTurnRequest(turn=turn), metadata=auth))
    rewound = await rest(inference.ResumeTurn(pb.ResumeTurnRequest(turn=turn, after_seq=1), metadata=auth))
    got = await inference.GetTurn(pb.GetTurnRequest(turn=turn), metadata=auth)
    ended = await inference.CancelTurn(pb.CancelTurnRequest(turn=turn), metadata=auth)
    assert events[-1].HasField("finished") and got.answer.message.content[0].text
    streams = ("".join(event.reasoning.text for event in stream) for stream in (events, rewound))
    return {*streams, got.answer.message.reasoning, ended.answer.message.reasoning}


@pytest.mark.parametrize("asked_for", [True, False])
async def test_reasoning_is_told_to_who_may_see_it_in_a_turn_that_asked_for_it(asked_for: bool) -> None:
    engine = ScriptedEngine([ANSWER])
    async with running_gateways(2, model="gpt-oss-tiny", engine=engine) as gateways:
        stores = gateways[0].endpoint.stores
        plain, seeing = await mint_key(stores), await mint_key(stores, scopes=[Scope.REASONING])
        request = ask("Where?", reasoning=pb.Reasoning(include=asked_for))
        auth = (("authorization", f"Bearer {seeing}"),)
        events = await rest(gateways[0].endpoint.inference.StreamGenerate(request, metadata=auth))
        turn = events[0].started.turn
        for gateway in gateways:
            assert await reasoning_read(gateway, turn, plain) == {""}
            assert await reasoning_read(gateway, turn, seeing) == ({THOUGHT} if asked_for else {""})
