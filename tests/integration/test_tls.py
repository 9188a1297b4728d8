"""The public port with TLS, and with client certificates."""

from pathlib import Path

import grpc
import pytest
from cryptography import x509
from prometheus_client import REGISTRY

from cluster.engine.sim import SimSettings, SimTiming
from services.api.headrace.v1 import inference_pb2_grpc
from services.cli import where
from services.cli.exits import CliError
from tests.support.certificates import self_signed
from tests.support.gateway import ask, running_gateway


@pytest.fixture
def pem(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key: good for both sides."""
    return self_signed(tmp_path)


def replace(pem: tuple[Path, Path], other: Path) -> None:
    """As Kubernetes does it: each file changes in one step."""
    other.mkdir()
    for new, old in zip(self_signed(other), pem, strict=True):
        new.replace(old)


async def generate(address: str, auth: object, *pems: bytes) -> int:
    credentials = grpc.ssl_channel_credentials(*pems)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        reply = await stub.Generate(ask(max_tokens=3), metadata=auth, timeout=10)
        return int(reply.usage.completion_tokens)


async def test_tls_serves_those_who_trust_the_certificate(pem: tuple[Path, Path]) -> None:
    certificate, key = pem
    async with running_gateway(tls={"certificate": certificate, "key": key}) as endpoint:
        assert await generate(endpoint.address, endpoint.auth, certificate.read_bytes()) == 3


async def test_mutual_tls_refuses_a_client_without_a_certificate(pem: tuple[Path, Path]) -> None:
    certificate, key = pem
    tls = {"certificate": certificate, "key": key, "client_ca": certificate}
    root, private = certificate.read_bytes(), key.read_bytes()
    async with running_gateway(tls=tls) as endpoint:
        assert await generate(endpoint.address, endpoint.auth, root, private, root) == 3
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await generate(endpoint.address, endpoint.auth, root)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_command_shows_the_certificate_that_its_environment_names(
    pem: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = pem
    tls = {"certificate": certificate, "key": key, "client_ca": certificate}
    async with running_gateway(tls=tls) as endpoint:
        env = {
            "HEADRACE_HOME": str(tmp_path),
            "HEADRACE_ENDPOINT": f"https://{endpoint.address}",
            "HEADRACE_API_KEY": dict(endpoint.auth)["authorization"].removeprefix("Bearer "),
            "HEADRACE_CA": str(certificate),
            "HEADRACE_CLIENT_CERTIFICATE": str(certificate),
            "HEADRACE_CLIENT_KEY": str(key),
        }
        client = where.find(None, None, env).client()
        assert await client.models()
        await client.close()
        del env["HEADRACE_CLIENT_KEY"]
        with pytest.raises(CliError, match="go together"):
            where.find(None, None, env)


async def test_a_certificate_that_is_replaced_is_served_and_no_stream_is_dropped(
    pem: tuple[Path, Path], tmp_path: Path
) -> None:
    certificate, key = pem
    before = certificate.read_bytes()
    slow = SimSettings(timing=SimTiming(step_s=0.01), context_length=2048, vocab_size=49152)
    async with running_gateway(sim=slow, tls={"certificate": certificate, "key": key}) as endpoint:
        old = grpc.ssl_channel_credentials(before)
        async with grpc.aio.secure_channel(endpoint.address, old) as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)
            call = stub.StreamGenerate(ask(max_tokens=100), metadata=endpoint.auth)
            events = [await call.read()]
            replace(pem, tmp_path / "new")
            after = certificate.read_bytes()
            assert await generate(endpoint.address, endpoint.auth, after) == 3
            assert endpoint.replicas[0].board.load().running == 1  # the stream outlives the certificate
            while (event := await call.read()) is not grpc.aio.EOF:
                events.append(event)
        assert events[-1].HasField("finished")
        with pytest.raises(grpc.aio.AioRpcError):
            await generate(endpoint.address, endpoint.auth, before)
        ends = x509.load_pem_x509_certificate(after).not_valid_after_utc.timestamp()
        assert REGISTRY.get_sample_value("headrace_tls_expiry_seconds") == ends


async def test_a_bad_new_certificate_leaves_the_old_one_and_one_line(
    pem: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, key = pem
    before = certificate.read_bytes()
    async with running_gateway(tls={"certificate": certificate, "key": key}) as endpoint:
        key.write_bytes(b"half a key")
        for _ in range(3):
            assert await generate(endpoint.address, endpoint.auth, before) == 3
    told = capsys.readouterr()
    assert (told.out + told.err).count("certificate kept") == 1
    assert "half a key" not in told.out + told.err


async def test_a_new_client_ca_decides_who_may_come(pem: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = pem
    (tmp_path / "ca").mkdir()
    client_ca, client_key = self_signed(tmp_path / "ca")
    mine = client_key.read_bytes(), client_ca.read_bytes()
    root = certificate.read_bytes()
    tls = {"certificate": certificate, "key": key, "client_ca": client_ca}
    async with running_gateway(tls=tls) as endpoint:
        assert await generate(endpoint.address, endpoint.auth, root, *mine) == 3
        replace((client_ca, client_key), tmp_path / "new")
        with pytest.raises(grpc.aio.AioRpcError):
            await generate(endpoint.address, endpoint.auth, root, *mine)
        theirs = client_key.read_bytes(), client_ca.read_bytes()
        assert await generate(endpoint.address, endpoint.auth, root, *theirs) == 3
