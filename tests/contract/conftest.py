import pytest

from tests.contract.stores import ADAPTERS, Stores, memory_stores, redis_stores
from tests.support.valkey import (  # noqa: F401
    cluster_client,
    valkey_client,
    valkey_cluster,
    valkey_server,
    valkey_url,
)


@pytest.fixture(params=ADAPTERS)
def stores(request: pytest.FixtureRequest) -> Stores:
    if request.param == "memory":
        return memory_stores()
    client = "valkey_client" if request.param == "redis" else "cluster_client"
    return redis_stores(request.getfixturevalue(client))
