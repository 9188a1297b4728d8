"""A channel option with a mistyped name is ignored in silence."""

from pathlib import Path

import pytest
from grpc._cython import cygrpc

from cluster.link.server import options as link_options
from services.backend.link import CHANNEL_OPTIONS
from services.client.endpoints import OPTIONS as CLIENT
from services.gateway.server import options
from tests.support.gateway import settings

NAMES = {name for name, _ in (*options(settings()), *link_options(2048), *CHANNEL_OPTIONS, *CLIENT)}


@pytest.fixture(scope="module")
def library() -> bytes:
    return Path(cygrpc.__file__).read_bytes()


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_library_knows_the_option(name: str, library: bytes) -> None:
    assert name.encode() + b"\0" in library
