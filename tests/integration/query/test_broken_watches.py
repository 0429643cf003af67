"""Watches whose clients die leave their places to others."""

from pathlib import Path

import grpc

from tests.integration.query.test_query_server import QueryServer, bearer, jwks, run_server
from tests.integration.query.test_watches import TIMEOUT, change, set_build, watch
from tests.support.harness.read_model import ReadModel
from tests.support.harness.waiting import until
from tests.support.harness.watching_client import hold_watches_and_die
from tests.support.ledger.stored_views import cheque

__all__ = ["jwks"]
WATCHES, CLIENTS = 20, 3


async def can_watch(server: QueryServer) -> bool:
    """Return whether a caller can have all the watches of its limit, and close them again."""
    calls = [watch(server) for _ in range(WATCHES)]
    try:
        return all([await call.read() for call in calls])
    except grpc.aio.AioRpcError:
        return False
    finally:
        for call in calls:
            call.cancel()


async def test_watches_of_killed_clients_leave_their_places(
    model: ReadModel, redis_url: str, jwks: Path
) -> None:
    await set_build(model, "first")
    await change(model, cheque("c-1"))
    ((_, authorization),) = bearer()
    token = authorization.removeprefix("Bearer ")
    async with run_server(redis_url, jwks, DIPTYCH_MAX_WATCHES_PER_CALLER=str(WATCHES)) as server:
        await until(server.is_serving, TIMEOUT)
        for _ in range(CLIENTS):
            await until(lambda: can_watch(server), TIMEOUT)
            await hold_watches_and_die(server.address, token, WATCHES)
        await until(lambda: can_watch(server), TIMEOUT)
