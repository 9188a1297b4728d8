"""An old connection is given up, so that its client meets new gateways; what runs on it goes on."""

import asyncio

import grpc

from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2_grpc
from tests.support.gateway import ask, running_gateway, settings


async def test_a_stream_outlives_its_connections_age_and_the_next_call_connects_anew() -> None:
    slow = SimSettings(timing=SimTiming(step_s=0.02), context_length=2048, vocab_size=49152)
    async with (
        running_gateway(sim=slow, max_connection_age=1) as endpoint,
        asyncio.timeout(30),
        grpc.aio.insecure_channel(endpoint.address) as channel,
    ):
        stub = inference_pb2_grpc.InferenceStub(channel)
        call = stub.StreamGenerate(ask(max_tokens=100), metadata=endpoint.auth)
        await call.read()
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        await channel.wait_for_state_change(grpc.ChannelConnectivity.READY)  # told to go
        assert endpoint.replicas[0].board.load().running == 1
        events = []
        while (event := await call.read()) is not grpc.aio.EOF:
            events.append(event)
        assert events[-1].HasField("finished")
        reply = await stub.Generate(ask(max_tokens=2), metadata=endpoint.auth)
        assert reply.usage.completion_tokens == 2


def test_the_grace_of_a_connection_is_never_shorter_than_a_turn() -> None:
    assert settings(max_turn_seconds=900).connection_grace > 900
    assert settings(max_turn_seconds=900, max_connection_grace=5).connection_grace > 900
    assert settings(max_turn_seconds=60, max_connection_grace=500).connection_grace == 500
