"""AsyncLLM driven in its own process: "{}" once ready, then a JSON line for each "STREAMS TOKENS" line."""

import asyncio
import json
import sys
import time

import uvloop
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from cluster.engine.vllm import open_llm
from tests.load.generator import Times, prompt, summary
from tests.load.subjects import settings


async def follow(llm: AsyncLLM, name: str, ids: list[int], tokens: int) -> tuple[Times, int]:
    drawn = SamplingParams(
        temperature=0,
        max_tokens=tokens,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )
    times, count = [time.perf_counter()], 0
    async for output in llm.generate({"prompt_token_ids": ids}, drawn, name):
        times.append(time.perf_counter())
        count += len(output.outputs[0].token_ids)
    return times, count


async def serve(llm: AsyncLLM, encode: "Encode") -> None:
    print("{}", flush=True)
    run = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        run += 1
        streams, tokens = map(int, line.split())
        begun, cpu = time.perf_counter(), time.process_time()
        work = (follow(llm, f"{run}-{i}", encode(prompt(i)), tokens) for i in range(streams))
        results = await asyncio.gather(*work)
        report = summary(list(results), time.perf_counter() - begun, 0.0)
        print(json.dumps(report | {"cpu": time.process_time() - cpu}), flush=True)


class Encode:
    def __init__(self, checkpoint: str) -> None:
        from services.core.clock import SystemClock
        from services.text.checkpoint import Checkpoint
        from services.text.template import ChatTemplate

        self._template = ChatTemplate(Checkpoint.load(checkpoint), SystemClock())

    def __call__(self, text: str) -> list[int]:
        from services.core.request import Conversation, Message, Role

        return self._template.prompt(Conversation((Message(Role.USER, text),)))


def main() -> None:
    from pathlib import Path

    checkpoint = Path(sys.argv[1])
    encode = Encode(str(checkpoint))
    llm = open_llm(settings(checkpoint))
    try:
        uvloop.run(serve(llm, encode))
    finally:
        llm.shutdown()


if __name__ == "__main__":
    main()
