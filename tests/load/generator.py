"""Closed-loop streams in a process of their own: `python -m tests.load.generator`, JSON in, JSON out.

Spec on stdin: {"protocol": "grpc" | "http", "target", "key", "model", "streams", "tokens"}. All
streams start together, each asks for `tokens` tokens, and the times of every message are kept.
Messages are not decoded while the clock runs, so that the client costs both protocols little.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import aiohttp
import grpc
import uvloop

from services.api.headrace.v1 import inference_pb2 as pb

Stream = Callable[[int], AsyncIterator[bytes]]
Times = list[float]


def prompt(i: int) -> str:
    return f"Stream {i}: tell a long story about water that turns a wheel."


async def follow(stream: AsyncIterator[bytes]) -> tuple[float, Times, list[bytes]]:
    begun = time.perf_counter()
    times, messages = [], []
    async for message in stream:
        times.append(time.perf_counter())
        messages.append(message)
    return begun, times, messages


async def grpc_streams(spec: dict[str, Any]) -> list[tuple[Times, int]]:
    metadata = (("authorization", f"Bearer {spec['key']}"),)
    async with grpc.aio.insecure_channel(spec["target"]) as channel:
        method = channel.unary_stream("/headrace.v1.Inference/StreamGenerate")

        def one(i: int) -> AsyncIterator[bytes]:
            message = pb.Message(role=pb.ROLE_USER, content=[pb.Part(text=prompt(i))])
            request = pb.GenerateRequest(model=spec["model"], messages=[message], max_tokens=spec["tokens"])
            request.sampling.temperature = 0
            return method(request.SerializeToString(), metadata=metadata)

        results = await asyncio.gather(*(follow(one(i)) for i in range(spec["streams"])))
    return [_grpc_result(*result) for result in results]


def _grpc_result(begun: float, times: Times, messages: list[bytes]) -> tuple[Times, int]:
    events = [pb.StreamEvent.FromString(message) for message in messages]
    deltas = [t for t, event in zip(times, events, strict=True) if event.HasField("delta")]
    return [begun, *deltas], sum(event.delta.tokens for event in events)


async def http_streams(spec: dict[str, Any]) -> list[tuple[Times, int]]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600)) as session:

        async def one(i: int) -> AsyncIterator[bytes]:
            body = {
                "model": spec["model"],
                "messages": [{"role": "user", "content": prompt(i)}],
                "max_tokens": spec["tokens"],
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            async with session.post(f"{spec['target']}/v1/chat/completions", json=body) as response:
                response.raise_for_status()
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        yield line

        results = await asyncio.gather(*(follow(one(i)) for i in range(spec["streams"])))
    return [_http_result(*result) for result in results]


def _http_result(begun: float, times: Times, messages: list[bytes]) -> tuple[Times, int]:
    chunks = [json.loads(message[6:]) for message in messages]
    usage = next(chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage"))
    content = [
        t
        for t, chunk in zip(times, chunks, strict=True)
        if chunk["choices"] and chunk["choices"][0]["delta"].get("content")
    ]
    return [begun, *content], usage["completion_tokens"]


async def run(spec: dict[str, Any]) -> dict[str, Any]:
    streams = grpc_streams if spec["protocol"] == "grpc" else http_streams
    begun, cpu = time.perf_counter(), time.process_time()
    results = await streams(spec)
    return summary(results, time.perf_counter() - begun, time.process_time() - cpu)


def summary(results: list[tuple[Times, int]], seconds: float, client_cpu: float) -> dict[str, Any]:
    """Seconds; `messages` counts messages with text."""
    last = max(times[-1] for times, _ in results)
    first = min(times[0] for times, _ in results)
    tokens = sum(count for _, count in results)
    return {
        "tokens": tokens,
        "seconds": last - first,
        "tokens_per_s": tokens / (last - first),
        "messages": sum(len(times) - 1 for times, _ in results),
        "ttft": percentiles([times[1] - times[0] for times, _ in results if len(times) > 1]),
        "inter_token": percentiles([b - a for times, _ in results for a, b in pairwise(times[1:])]),
        "client_cpu_us_per_token": client_cpu / tokens * 1e6,
        "wall": seconds,
    }


def percentiles(values: list[float]) -> dict[str, float]:
    ranked = sorted(values) or [0.0]
    return {
        name: ranked[min(len(ranked) - 1, int(len(ranked) * q))] for name, q in (("p50", 0.5), ("p99", 0.99))
    }


def main() -> None:
    print(json.dumps(uvloop.run(run(json.load(sys.stdin)))))


if __name__ == "__main__":
    main()
