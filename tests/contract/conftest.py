import pytest

from tests.contract.stores import ADAPTERS, MASTER, Stores, memory_stores, redis_stores
from tests.support.valkey import valkey_client, valkey_server, valkey_url  # noqa: F401


@pytest.fixture(params=ADAPTERS)
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "memory":
        return memory_stores()
    master = MASTER if request.param == "sealed" else b""
    return redis_stores(request.getfixturevalue("valkey_client"), master)
