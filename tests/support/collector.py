"""An OpenTelemetry collector in this process: OTLP over real gRPC, spans as they came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Value = str | int | float | bool


@dataclass(slots=True)
class Told:
    """One span with its attributes as plain values."""

    span: Span

    @property
    def name(self) -> str:
        return str(self.span.name)

    @property
    def attributes(self) -> dict[str, Value]:
        return {pair.key: _plain(pair.value) for pair in self.span.attributes}

    @property
    def events(self) -> list[str]:
        return [event.name for event in self.span.events]


class Collector(rpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[Told] = []
        self.bytes = b""  # of all requests, to look for what must not be in them
        self.address = ""

    async def Export(self, request: Any, context: Any) -> pb.ExportTraceServiceResponse:
        self.bytes += request.SerializeToString()
        for of_resource in request.resource_spans:
            for of_scope in of_resource.scope_spans:
                self.spans += map(Told, of_scope.spans)
        return pb.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Told]:
        return [told for told in self.spans if told.name == name]

    def one(self, name: str) -> Told:
        [told] = self.named(name)
        return told

    async def until(self, *names: str) -> None:
        """Each of these spans has come."""
        async with asyncio.timeout(10):
            while not set(names) <= {told.name for told in self.spans}:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    collector, server = Collector(), grpc.aio.server()
    rpc.add_TraceServiceServicer_to_server(collector, server)
    collector.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(0)


def _plain(value: Any) -> Value:
    plain: Value = getattr(value, value.WhichOneof("value"))
    return plain
