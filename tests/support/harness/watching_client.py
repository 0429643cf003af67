"""A client that opens watches of a cheque and holds them until it is killed; for `python -m`."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import grpc

from tests.support.ledger.stubs import queries, queries_grpc

ROOT = Path(__file__).parents[3]


async def hold_watches_and_die(address: str, token: str, count: int) -> None:
    """Run a client that is killed while all of its watches are served."""
    arguments = ("-m", __name__, address, token, str(count))
    client = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT, stdout=PIPE)
    assert client.stdout is not None
    try:
        assert await asyncio.wait_for(client.stdout.readline(), 30) == b"watching\n"
    finally:
        client.kill()
        await client.wait()


async def main(address: str, token: str, count: int) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = queries_grpc.QueryServiceStub(channel)
        request = queries.WatchChequeRequest(cheque_id="c-1")
        metadata = (("authorization", f"Bearer {token}"),)
        calls = [stub.WatchCheque(request, metadata=metadata) for _ in range(count)]
        await asyncio.gather(*(call.read() for call in calls))
        print("watching", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
