"""Runs a stack of the version of Diptych that its interpreter has installed; `bench.hosted_stack` starts it.

Run as `python -P stack_host.py FOLDER MANAGERS VARIABLES`: an empty folder, the number of process managers,
and further variables of all processes as JSON. It imports nothing of `bench`, so that it runs in the tree of
another version. Replies are lines of JSON on stdout: the stack's description once it serves, then one for
each line `verify` on stdin. The end of stdin stops it.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.verify.verification import verify
from runtime.process import logs

CONTEXTS = ("ordering", "inventory", "banking")
SCOPES = (
    *(f"{context}.{scope}" for context in CONTEXTS for scope in ("read", "all")),
    *(f"ordering.{duty}" for duty in ("place", "own-prices", "review", "confirm", "ship")),
    *(f"banking.{duty}" for duty in ("open", "deposit", "pay", "hold", "refund")),
    *("inventory.write", "inventory.reserve", "inventory.purchase"),
    *("ticketing.write", "ticketing.buy", "ticketing.all", "customers.write", "customers.all"),
)


def describe(stack: Stack, token: str) -> dict[str, Any]:
    """Return the fields of `bench.hosted_stack.RunningSystem`."""
    settings = stack.settings
    children = {
        **{server.name: server.child for server in stack.servers.values()},
        **{process.name: process.child for process in stack.processes},
    }
    return {
        "command_address": settings.command_address,
        "query_address": settings.query_address,
        "database_url": settings.database_url,
        "nats_url": settings.nats_url,
        "redis_url": settings.redis_url,
        "token": token,
        "processes": {name: child.process.pid for name, child in children.items() if child.running},
    }


def reply(content: object) -> None:
    print(json.dumps(content), flush=True)


async def main(folder: Path, managers: int, variables: dict[str, str]) -> None:
    """Run the stack until stdin ends."""
    logs.configure("error", "console", sys.stderr.buffer)
    async with temporary_stack(
        folder, process_managers=managers, durable=True, environment=variables
    ) as stack:
        reply(describe(stack, stack.token(*SCOPES, subject="bench")))
        while await asyncio.to_thread(sys.stdin.readline) == "verify\n":
            report = await verify(stack.settings)
            reply({"clean": report.clean, "text": report.to_text()})


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])))
