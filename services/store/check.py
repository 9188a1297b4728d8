"""What a gateway asks of its store before it serves: that it answers, and that it forgets nothing."""

from redis.exceptions import NoPermissionError

from services.store.connect import Store, store_errors
from services.store.node import Node


async def check(client: Store) -> None:
    """Asks every server that holds data. Raises StoreAway, or ValueError if one could evict what it was asked
    to keep or denies the question: one line that says what to do."""
    async with store_errors():
        for node in await client.masters():
            policy = await _policy(node)
            if policy != "noeviction":
                raise ValueError(f"Redis evicts keys (maxmemory-policy {policy}); set it to noeviction")


async def _policy(node: Node) -> str:
    try:
        return str((await node.info("memory")).get("maxmemory_policy", "noeviction"))
    except NoPermissionError:
        raise ValueError(
            "the Redis user may not run INFO, which tells the maxmemory-policy; "
            "grant +info (the whole rule is in services/store/README.md)"
        ) from None
