"""The public port with TLS, and with client certificates."""

from pathlib import Path

import grpc
import pytest

from services.api.headrace.v1 import inference_pb2_grpc
from services.cli import where
from services.cli.exits import CliError
from tests.support.certificates import self_signed
from tests.support.gateway import ask, running_gateway


@pytest.fixture
def pem(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key: good for both sides."""
    return self_signed(tmp_path)


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
