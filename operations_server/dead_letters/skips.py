"""Skips of dead letters: the row in PostgreSQL, its copy in Redis, and another delivery.

How it works. The row is written first, and is what counts. Projectors get it from a copy in Redis, which is
written next if it is a valid one; otherwise they ask the relay. At last the event is tried again: a projector
or the saga's engine then steps over it. If Redis is away after the row was written, projectors find it within
half a minute after its return.
"""

from typing import Any

from diptych.operations.v1.dead_letters_pb2 import DeadLetter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from contracts.skips import INCARNATION, name_field
from contracts.view_layout import View
from operations_server.acts import read_trace_id
from operations_server.dead_letters.letters import Letter
from operations_server.dead_letters.retries import LetterRetries
from operations_server.dead_letters.saga_letters import SagaLetter
from operations_server.records.database import Database
from projector.records import Parked
from runtime.grpc import caller
from runtime.grpc.rpc_error import RpcError
from runtime.process import logs
from runtime.skipped_events import name_projection, name_saga

ADD = """
WITH added AS (
  INSERT INTO skipped_events (consumer, stream, version, reason, subject, trace_id)
  SELECT $1, stream, version, $4, $5, $6 FROM events WHERE stream = $2 AND version = $3
  ON CONFLICT DO NOTHING RETURNING number
)
SELECT incarnation::text AS incarnation,
  EXISTS (SELECT FROM added)
  OR EXISTS (SELECT FROM skipped_events WHERE consumer = $1 AND stream = $2 AND version = $3) AS has_row
FROM relay_state
"""
NO_EVENT_FAILS = ("EventsMissing:", "ViewUnreadable:", "ViewArchived:")
"""Errors of aggregates that wait for something else than an event that can be applied."""

log = logs.get_logger(__name__)


class LetterSkips:
    """Skips dead letters.

    Args:
        database: in the role of the operations server.
        redis: the connection.
        retries: retries dead letters.
    """

    def __init__(self, database: Database, redis: Redis, retries: LetterRetries) -> None:
        self._database = database
        self._redis = redis
        self._retries = retries

    async def skip(self, letter: Letter, reason: str) -> None:
        """Have a projection or a saga step over the event of a dead letter for good.

        Raises:
            RpcError: `SKIP_NOT_POSSIBLE`, or `WRITE_MODEL_UNAVAILABLE`: repeat it, or retry the dead letter.
        """
        if isinstance(letter.source, SagaLetter):
            await self._add(name_saga(letter.source.saga), letter.message, reason)
            await self._retries.deliver(letter.source)
            return
        _check_fails(letter.source, letter.message)
        message = letter.message
        incarnation = await self._add(name_projection(message.projection), message, reason)
        try:
            await self._add_to_copy(self._retries.find_view(message.projection), incarnation, message)
            await self._retries.retry_parked([letter])
        except RedisError as error:
            log.warning("Skip not passed on to projectors", stream=message.stream, error=repr(error))

    async def _add(self, consumer: str, message: DeadLetter, reason: str) -> str:
        """Write the row; return the incarnation of the database."""
        subject = caller.current().subject
        values = consumer, message.stream, message.version, reason, subject, read_trace_id()
        (row,) = await self._database.fetch(ADD, *values)
        if not row["has_row"]:
            raise _not_possible(message, "PostgreSQL has no such event")
        return str(row["incarnation"])

    async def _add_to_copy(self, view: View, incarnation: str, message: DeadLetter) -> None:
        stored: Any = await self._redis.hget(view.skips, INCARNATION)
        if stored == incarnation.encode():  # otherwise projectors get all of them from the relay
            await self._redis.hset(view.skips, name_field(message.stream, message.version), "")


def _check_fails(parked: Parked, message: DeadLetter) -> None:
    """Check that an event fails at the version at which an aggregate is parked.

    Raises:
        RpcError: `SKIP_NOT_POSSIBLE`.
    """
    has_failed = parked.attempts or parked.place
    if parked.refold or not has_failed or parked.error.startswith(NO_EVENT_FAILS):
        raise _not_possible(message, "no event has failed: its events are read at the moment, or are missing")


def _not_possible(message: DeadLetter, cause: str) -> RpcError:
    metadata = {"stream": message.stream, "version": str(message.version), "cause": cause}
    return RpcError.of_rule("operations", "SKIP_NOT_POSSIBLE", metadata)
