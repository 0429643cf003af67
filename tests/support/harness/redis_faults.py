"""Names of keys and members in the system that faults are planted in."""

from typing import Any

from tests.support.harness.verified_system import System


def key(kind: str, name: str, projection: str = "ledger.cheque") -> str:
    return f"{kind}:{projection}:2:{{{name}}}"


async def read_member(system: System, cheque_id: str) -> str:
    """Return a cheque's member of the indexes."""
    members: Any = await system.redis.zrange(key("index", "all"), 0, -1)
    return next(name for name in map(bytes.decode, members) if name.endswith(f":{cheque_id}"))
