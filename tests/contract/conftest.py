import pytest

from tests.contract.stores import ADAPTERS, Stores, memory_stores, redis_stores
from tests.support.valkey import (  # noqa: F401
    cluster_client,
    restricted_client,
    valkey_client,
    valkey_cluster,
    valkey_server,
    valkey_url,
)

CLIENTS = {"redis": "valkey", "cluster": "cluster", "restricted": "restricted"}


@pytest.fixture(params=ADAPTERS)
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "memory":
        return memory_stores()
    client = request.getfixturevalue(f"{CLIENTS[request.param]}_client")
    return redis_stores(
        client, request.getfixturevalue("valkey_client") if request.param == "restricted" else client
    )
