"""One Ray of two nodes for all tests here: starting engines on it is what they cost."""

from collections.abc import Iterator

import pytest
import pytest_asyncio

from tests.cluster.deployment import RELOAD_S, Deployments, Replica, Splits, compare_splits
from tests.support.engine_gptoss import tiny_gptoss_checkpoint
from tests.support.two_nodes import TwoNodes, two_nodes
from tests.support.valkey import running_valkey


@pytest.fixture(scope="session")
def two_node_ray() -> Iterator[TwoNodes]:
    with two_nodes() as ray:
        yield ray


@pytest.fixture(scope="session")
def checkpoint() -> str:
    """The folder of the tiny gpt-oss, which splits in two."""
    return str(tiny_gptoss_checkpoint())


@pytest.fixture(scope="session")
def deployments(two_node_ray: TwoNodes, checkpoint: str) -> Iterator[Deployments]:
    ray = two_node_ray
    with running_valkey("--bind", "127.0.0.1", ray.here, "--protected-mode", "no") as valkey:
        port = valkey.url.rpartition(":")[2]
        yield Deployments(ray, f"redis://{ray.here}:{port}", checkpoint)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def first_spread(deployments: Deployments) -> tuple[Replica, float]:
    """The replica on two nodes as deployed, and the seconds it took."""
    return await deployments.deploy("spread", tensor_parallel_size=2, nodes=2)


@pytest_asyncio.fixture(loop_scope="session")
async def spread(deployments: Deployments, first_spread: tuple[Replica, float]) -> Replica:
    """The replica on two nodes; a new one, where a test before this one has killed it."""
    return await deployments.replica("spread", seconds=RELOAD_S)


@pytest_asyncio.fixture(loop_scope="session")
async def splits(deployments: Deployments, first_spread: tuple[Replica, float], spread: Replica) -> Splits:
    return await compare_splits(deployments, spread, first_spread[1])
