"""One caller in a process of its own, which keeps a number of calls in flight and counts their outcomes.

Run as a module it prints the counts as JSON.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import grpc
from diptych_client import Rejection

from tests.support.ledger.stubs import commands, commands_grpc, queries, queries_grpc

ROOT = Path(__file__).parents[3]
SETTLING = 0.5
"""Seconds at the start that do not count."""
Outcomes = Counter[str]


async def run_caller(
    kind: str, address: str, token: str, calls: int, seconds: float, *, obeys: bool = True
) -> Outcomes:
    """Run a caller in a process of its own; return the number of calls by outcome, OK or a reason.

    Args:
        kind: `write`, WriteCheque; or `read`, GetCheque.
        address: of the server.
        token: the access token; empty for none.
        calls: calls in flight.
        seconds: of the run.
        obeys: whether it pauses after an error for as long as the server says.
    """
    arguments = (kind, address, token, str(calls), str(seconds), str(int(obeys)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, *arguments, cwd=ROOT, stdout=PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return Counter(json.loads(out))


async def main(kind: str, address: str, token: str, calls: int, seconds: float, obeys: bool) -> Outcomes:
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    outcomes, start = Outcomes(), monotonic()
    async with grpc.aio.insecure_channel(address) as channel:
        send = _writer(channel, metadata) if kind == "write" else _reader(channel, metadata)

        async def call_until_end() -> None:
            while monotonic() < start + SETTLING + seconds:
                outcome, hint = await _call(send)
                if monotonic() >= start + SETTLING:
                    outcomes[outcome] += 1
                if obeys:
                    await asyncio.sleep(hint)

        await asyncio.gather(*(call_until_end() for _ in range(calls)))
    return outcomes


async def _call(send: Callable[[], Awaitable[Any]]) -> tuple[str, float]:
    try:
        await send()
    except grpc.aio.AioRpcError as error:
        rejection = Rejection.from_error(error)
        return rejection.reason or error.code().name, rejection.retry_after or 0.0
    return "OK", 0.0


def _writer(channel: grpc.aio.Channel, metadata: Any) -> Callable[[], Awaitable[Any]]:
    stub: Any = commands_grpc.CommandServiceStub(channel)
    return lambda: stub.WriteCheque(
        commands.WriteChequeRequest(request_id=str(uuid4()), account_id="a-1", amount=1),
        metadata=metadata,
        timeout=10,
    )


def _reader(channel: grpc.aio.Channel, metadata: Any) -> Callable[[], Awaitable[Any]]:
    stub: Any = queries_grpc.QueryServiceStub(channel)
    request = queries.ListChequesRequest(account_id="load", page_size=1)
    return lambda: stub.ListCheques(request, metadata=metadata, timeout=10)


if __name__ == "__main__":
    name, target, bearer, in_flight, duration, obedient = sys.argv[1:]
    result = asyncio.run(main(name, target, bearer, int(in_flight), float(duration), obedient == "1"))
    print(json.dumps(result))
