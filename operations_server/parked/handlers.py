"""`ListParkedAggregates` and `RetryParkedAggregates`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager

from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.operations.v1.parked_pb2 import ParkedAggregate
from grpc import StatusCode
from redis.asyncio import Redis
from redis.exceptions import RedisError

from contracts.generations import read_serving
from contracts.view_layout import View
from operations.parked_aggregates import AggregateUnknown, RetryNotPossible, retry_parked
from operations_server.acts import OperatorActs
from operations_server.parked.parked_list import Entry, ParkedList, Position, decode_position, encode_position
from operations_server.parked.times import cut_error, to_time
from runtime.grpc.method import Context, Handler
from runtime.grpc.request_tokens import RequestTokens, invalid_page_token
from runtime.grpc.response_size import PageBudget
from runtime.grpc.rpc_error import RpcError

PAGE_SIZE = 50
MAX_READ = 1_000
"""Entries that a page reads at most, if a filter leaves out most of them."""
MAX_NAMED = 5
"""Ids that the target of an act names."""


class ParkedAggregates:
    """Lists and retries the parked aggregates of some projections.

    Args:
        redis: the connection.
        views: of the projections.
        tokens: mints and reads page tokens.
    """

    def __init__(self, redis: Redis, views: Sequence[View], tokens: RequestTokens) -> None:
        self._redis = redis
        self._views = {view.projection: view for view in views}
        self._tokens = tokens
        self._list = ParkedList(redis, views)

    async def list_page(
        self, request: protocol.ListParkedAggregatesRequest, _context: Context
    ) -> protocol.ListParkedAggregatesResponse:
        names = self._choose(request.projection)
        with report_unavailable():
            if request.id:
                entries = await self._list.find(names, request.id)
                found = [each for each in entries if request.error in each[1].error]
                return protocol.ListParkedAggregatesResponse(aggregates=map(describe, found))
            return await self._read_page(names, request)

    async def _read_page(
        self, names: Sequence[str], request: protocol.ListParkedAggregatesRequest
    ) -> protocol.ListParkedAggregatesResponse:
        list_id = f"{request.projection}\0{request.error}"
        last, read = self._read_token(request, list_id), 0
        budget, size = PageBudget(), request.page_size or PAGE_SIZE
        response = protocol.ListParkedAggregatesResponse()
        async with aclosing(self._list.read_after(names, last)) as entries:
            async for position, parked in entries:
                message = describe((position, parked))
                matches = request.error in parked.error
                is_full = len(response.aggregates) == size or read == MAX_READ
                if is_full or (matches and not budget.take(message.ByteSize())):
                    token = encode_position(last) if last else ""
                    response.next_page_token = self._tokens.mint_page_token(request, list_id, token)
                    return response
                if matches:
                    response.aggregates.append(message)
                last, read = position, read + 1
        return response

    def _read_token(self, request: protocol.ListParkedAggregatesRequest, list_id: str) -> Position | None:
        token = self._tokens.read_page_token(request, list_id)
        try:
            return decode_position(token) if token else None
        except ValueError:
            raise invalid_page_token() from None

    async def retry(
        self, request: protocol.RetryParkedAggregatesRequest, _context: Context
    ) -> protocol.RetryParkedAggregatesResponse:
        (name,) = self._choose(request.projection)
        with report_unavailable():
            try:
                (view,) = await read_serving(self._redis, [self._views[name]])
                retried = await retry_parked(self._redis, view, request.ids)
            except AggregateUnknown as error:
                metadata = {"projection": name, "ids": ", ".join(error.ids[:MAX_NAMED])}
                raise RpcError.not_found("operations", "AGGREGATE_UNKNOWN", metadata) from error
            except RetryNotPossible as error:
                metadata = {"projection": name, "cause": str(error)}
                raise RpcError.of_rule(
                    "operations", "RETRY_NOT_POSSIBLE", metadata, StatusCode.FAILED_PRECONDITION
                ) from error
        return protocol.RetryParkedAggregatesResponse(retried=retried)

    def _choose(self, projection: str) -> list[str]:
        if not projection:
            return list(self._views)
        if projection not in self._views:
            raise RpcError.not_found("operations", "PROJECTION_UNKNOWN", {"projection": projection})
        return [projection]


def create_handlers(aggregates: ParkedAggregates, acts: OperatorActs) -> Mapping[str, Handler]:
    """Return the handlers by method."""
    retry = acts.record("RetryParkedAggregates", aggregates.retry, name_target)
    return {"ListParkedAggregates": aggregates.list_page, "RetryParkedAggregates": retry}


def name_target(request: protocol.RetryParkedAggregatesRequest) -> str:
    """Return what a retry is about, for people."""
    ids = ", ".join(request.ids[:MAX_NAMED]) or "all"
    more = f" and {len(request.ids) - MAX_NAMED} more" if len(request.ids) > MAX_NAMED else ""
    return f"{request.projection}: {ids}{more}"


def describe(entry: Entry) -> ParkedAggregate:
    """Return the message of an entry."""
    (_, projection, id_), parked = entry
    message = ParkedAggregate(
        projection=projection,
        id=id_,
        stream=parked.stream,
        version=parked.version,
        error=cut_error(parked.error),
        attempts=parked.attempts,
    )
    message.since.FromDatetime(to_time(parked.since))
    if parked.next_attempt is not None:
        message.next_attempt_time.FromDatetime(to_time(parked.next_attempt, now_if_zero=True))
    return message


@contextmanager
def report_unavailable() -> Iterator[None]:
    """Turn errors of Redis into the error of a call."""
    try:
        yield
    except (RedisError, OSError) as error:
        text = "Redis cannot be read"
        raise RpcError("READ_MODEL_UNAVAILABLE", text, retry_after=1.0) from error
