"""The public port with TLS, and with client certificates."""

import datetime
import ipaddress
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.api.headrace.v1 import inference_pb2_grpc
from tests.support.gateway import ask, running_gateway


@pytest.fixture
def pem(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key: good for both sides."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(private)
    return tmp_path / "cert.pem", tmp_path / "key.pem"


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
