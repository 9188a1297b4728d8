"""Whatever bytes come, the answer is a status that was meant."""

import random

import grpc

from tests.support.gateway import Endpoint, ask, running_gateway

METHODS = (
    "Inference/Generate", "Inference/CountTokens", "Models/ListModels", "Models/GetModel",
    "Sessions/Create", "Sessions/Get", "Sessions/List", "Sessions/Delete",
)  # fmt: skip
MEANT = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def mutated(rng: random.Random) -> bytes:
    """A valid request with some bytes changed, cut or doubled."""
    data = bytearray(ask("hello " * rng.randint(1, 5), max_tokens=rng.randint(1, 5)).SerializeToString())
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) or 1)
        if rng.random() < 0.6 and data:
            data[at] = rng.randrange(256)
        elif rng.random() < 0.5:
            del data[at:]
        else:
            data += data[at : at + 8]
    return bytes(data)


async def status(endpoint: Endpoint, method: str, data: bytes) -> grpc.StatusCode:
    try:
        await endpoint.channel.unary_unary(f"/headrace.v1.{method}")(data, metadata=endpoint.auth, timeout=20)
    except grpc.aio.AioRpcError as error:
        assert "Traceback" not in (error.details() or "") and "Error" not in (error.details() or "")
        return error.code()
    return grpc.StatusCode.OK


async def test_mutated_and_random_bytes_never_crash_a_method() -> None:
    rng = random.Random(20261123)
    async with running_gateway(default_max_tokens=8) as endpoint:
        for i in range(600):
            data = mutated(rng) if i % 2 else rng.randbytes(rng.randint(0, 60))
            method = METHODS[0] if i % 2 else METHODS[i % len(METHODS)]
            assert await status(endpoint, method, data) in MEANT, (method, data)
        assert endpoint.deps.admission.held == 0
