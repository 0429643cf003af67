"""Retries of dead letters: parked aggregates become due, and sagas get their events again."""

from collections.abc import Sequence

from diptych.operations.v1.dead_letters_pb2 import DeadLetter
from redis.asyncio import Redis

from contracts.generations import read_serving
from contracts.view_layout import View
from operations.parked_aggregates import RetryNotPossible, retry_listed
from operations_server.dead_letters.letters import Letter, group_ids
from operations_server.dead_letters.saga_letters import SagaLetter
from operations_server.sagas.acts import SagaActs
from runtime.grpc.rpc_error import RpcError


class LetterRetries:
    """Retries dead letters.

    Args:
        redis: the connection.
        views: of the projections.
        saga_acts: retries sagas.
    """

    def __init__(self, redis: Redis, views: Sequence[View], saga_acts: SagaActs) -> None:
        self._redis = redis
        self._views = {view.projection: view for view in views}
        self._saga_acts = saga_acts

    def find_view(self, projection: str) -> View:
        return self._views[projection]

    @property
    def projections(self) -> Sequence[str]:
        return list(self._views)

    async def retry_parked(self, letters: Sequence[Letter]) -> tuple[int, list[DeadLetter]]:
        """Make parked aggregates due now; return their number, and those that cannot be retried."""
        retried, refused = 0, list[DeadLetter]()
        for projection, ids in group_ids(letters).items():
            (view,) = await read_serving(self._redis, [self._views[projection]])
            try:
                retried += await retry_listed(self._redis, view, ids)
            except RetryNotPossible as error:
                own = [letter.message for letter in letters if letter.message.projection == projection]
                refused += [_with_error(message, str(error)) for message in own]
        return retried, refused

    async def retry_saga(self, letter: SagaLetter, message: DeadLetter) -> DeadLetter | None:
        """Deliver the event of a saga's dead letter again; return why that is not possible, else None.

        Raises:
            RpcError: `WRITE_MODEL_UNAVAILABLE`.
        """
        try:
            await self.deliver(letter)
        except RpcError as error:
            if error.reason == "WRITE_MODEL_UNAVAILABLE":
                raise
            return _with_error(message, error.message)
        return None

    async def deliver(self, letter: SagaLetter) -> None:
        """Deliver the event of a saga's dead letter again.

        Raises:
            RpcError: as the methods of `SagaActs`.
        """
        if letter.id:
            await self._saga_acts.deliver_failed(letter.saga, letter.id)
        else:
            await self._saga_acts.deliver_parked(letter.saga, letter.stream)


def _with_error(message: DeadLetter, error: str) -> DeadLetter:
    refused = DeadLetter()
    refused.CopyFrom(message)
    refused.error = error
    return refused
