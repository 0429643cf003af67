"""What is where in the system that faults are planted in."""

from typing import Any

from tests.support.harness.verified_system import System


def key(kind: str, name: str, projection: str = "ordering.order") -> str:
    """Return a key of a projection in Redis."""
    return f"{kind}:{projection}:2:{{{name}}}"


async def member(system: System, order_id: str) -> str:
    """Return what stands for an order in indexes."""
    found: Any = await system.redis.zrange(key("index", "all"), 0, -1)
    return next(name for name in map(bytes.decode, found) if name.endswith(f":{order_id}"))
