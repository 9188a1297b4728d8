"""From a hub to tokens: what `headrace fetch` staged is all that an engine needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.models.fetch import File, Listing, fetch
from cluster.models.sources import Hub
from tests.support.engine_micro import micro_checkpoint
from tests.support.hub import COMMIT, FakeHub, serving

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, sys
from cluster.engine.port import EngineRequest
from cluster.serving.replica import start_engine
from cluster.serving.settings import ReplicaSettings

async def run():
    vllm = {"checkpoint": sys.argv[1], "max_model_len": 512, "max_num_seqs": 8}
    asked = {"model": "m", "vllm": vllm, "link_token": "t", "redis_url": "redis://unused"}
    engine = await start_engine(ReplicaSettings.model_validate(asked))
    await engine.submit(EngineRequest(id=1, prompt=[1, 2, 3], max_tokens=5))
    tokens = 0
    while True:
        step = await engine.step()
        tokens += len(step.tokens)
        if step.finishes:
            break
    print("tokens", tokens)
    await engine.close()

asyncio.run(run())
"""


class Silent:
    def begin(self, listing: Listing, missing: int) -> None: ...
    def advance(self, count: int) -> None: ...
    def finished(self, file: File) -> None: ...


def test_an_engine_starts_from_the_staged_folder_and_asks_no_hub(tmp_path: Path) -> None:
    """The hub that the environment names answers and counts; the engine must not ask it for anything."""
    files = {
        path.name: path.read_bytes() for path in micro_checkpoint().iterdir() if path.name != "manifest.json"
    }
    with serving(FakeHub("org/micro", files)) as hub:
        fetch(Hub("org/micro", COMMIT, hub.url), tmp_path / "staged", Silent(), lambda _: None)
        assert hub.requests
        hub.requests.clear()
        place = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
        argv = [sys.executable, "-c", PROGRAM, str(tmp_path / "staged")]
        done = subprocess.run(
            argv, env=os.environ | place, cwd=ROOT, text=True, capture_output=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "tokens 5" in done.stdout.splitlines()
        assert hub.requests == []
