"""The gateway image's content without a container engine: its lock alone, its sources alone, and a start."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.images.test_dockerfiles import FOLDER, ROOT, copied
from tests.support import checkpoints
from tests.support.gateway import until
from tests.support.valkey import Valkey, free_port, running_valkey

pytestmark = pytest.mark.slow
FORBIDDEN = ("torch", "ray", "vllm", "transformers")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`venv` and `app`, as the Dockerfile makes them."""
    folder = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv/bin/python"
    lock = ROOT / "deploy/requirements/gateway.txt"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "--disable-pip-version-check",
        "install",
        "-q",
    ]
    subprocess.run(
        [*pip, "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(lock)], check=True
    )
    for sources, target in copied(FOLDER / "gateway.Dockerfile"):
        for source in sources:
            place(ROOT / source, folder / target.strip("/"))
    return folder


def place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    elif target.parent.is_dir():
        shutil.copy(source, target)


def environment(image: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": f"{image / 'venv/bin'}:/usr/bin:/bin",
        "PYTHONPATH": str(image / "app"),
        "PYTHONDONTWRITEBYTECODE": "1",
        **more,
    }


@pytest.mark.timeout(600)
def test_every_module_of_the_gateway_and_the_command_imports_and_no_engine_is_there(image: Path) -> None:
    program = f"""
import importlib, importlib.util, json, pkgutil, sys
import services
found = pkgutil.walk_packages(services.__path__, "services.")
names = [each.name for each in found if not each.name.endswith("__main__")]
for name in names: importlib.import_module(name)
print(json.dumps([len(names), [each for each in {FORBIDDEN!r} if importlib.util.find_spec(each)], services.__file__]))
"""
    python = image / "venv/bin/python"
    done = subprocess.run(
        [str(python), "-c", program],
        env=environment(image),
        capture_output=True,
        text=True,
        cwd=image,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    count, engines, where = json.loads(done.stdout.splitlines()[-1])
    assert count > 60 and engines == [] and where.startswith(str(image))


def test_the_image_is_small(image: Path) -> None:
    """Of packages and code, uncompressed; the base adds about 120 MB."""
    size = sum(path.lstat().st_size for path in image.rglob("*") if not path.is_dir())
    sys.stdout.write(f"gateway image: {size / 1e6:.0f} MB of packages and code\n")
    assert size < 350e6


@pytest.fixture
def store() -> Iterator[Valkey]:
    with running_valkey() as valkey:
        yield valkey


async def test_a_gateway_starts_from_it_and_is_served(image: Path, store: Valkey, tmp_path: Path) -> None:
    model = checkpoints.write(tmp_path / "m", checkpoints.QWEN_MARKS, checkpoints.QWEN)
    listen, health, metrics = free_port(), free_port(), free_port()
    config = tmp_path / "gateway.toml"
    config.write_text(
        f'listen = "127.0.0.1:{listen}"\nhealth_listen = "127.0.0.1:{health}"\nmetrics_listen = "127.0.0.1:{metrics}"\n'
        f'[models]\ntiny = "{model}"\n'
    )
    env = environment(
        image,
        HEADRACE_CONFIG=str(config),
        HEADRACE_REDIS_URL=store.url,
        HEADRACE_KEY_PEPPER="pepper",
        HEADRACE_LINK_TOKEN="token",
        TMPDIR=str(tmp_path),
    )
    argv = [str(image / "venv/bin/python"), "-m", "services.gateway"]
    log = tmp_path / "gateway.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(argv, env=env, cwd=tmp_path, stdout=out, stderr=out) as gateway,
    ):
        try:
            await until(lambda: alive(health) or gateway.poll() is not None, timeout=60)
            assert gateway.poll() is None, log.read_text()[-2000:]
        finally:
            gateway.terminate()
            gateway.wait(30)


def alive(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        question = health_pb2.HealthCheckRequest(service="liveness")
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(question, timeout=1)
        except grpc.RpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
