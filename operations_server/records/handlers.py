"""`ListRequests`, `ListEvents`, `TailEvents`, `ExportEvents` and `GetState`."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
from diptych.operations.v1 import operations_service_pb2 as protocol

from operations_server.records.content import read_content
from operations_server.records.database import report_failures, report_unavailable
from operations_server.records.event_filter import EventFilter, read_time
from operations_server.records.event_tail import SentEvents
from operations_server.records.records import Records
from operations_server.records.request_filter import RequestFilter
from operations_server.records.request_reader import Position
from operations_server.records.versions import check_time, find_version
from runtime.grpc.call_limit import CallLimit
from runtime.grpc.method import Context, Handler
from runtime.grpc.request_tokens import RequestTokens, invalid_page_token
from runtime.grpc.rpc_error import RpcError

PAGE_SIZE = 50
"""Entries on a page unless the request sets another size."""
NO_POSITION = 2**62
"""Above all positions: the events of one stream are read as they are committed."""


def create_handlers(records: Records, tokens: RequestTokens, limit: CallLimit) -> Mapping[str, Handler]:
    """Return the handlers by the names of their methods.

    Args:
        records: reads them.
        tokens: mints and reads page tokens.
        limit: of the tails and exports at the same time.
    """
    return {
        "ListRequests": report_failures(_ListRequests(records, tokens).handle),
        "ListEvents": report_failures(_ListEvents(records, tokens).handle),
        "TailEvents": _stream(records, limit, _tail),
        "ExportEvents": _stream(records, limit, _export),
        "GetState": report_failures(_create_get_state(records)),
    }


class _ListRequests:
    def __init__(self, records: Records, tokens: RequestTokens) -> None:
        self._records = records
        self._tokens = tokens

    async def handle(self, request: protocol.ListRequestsRequest, _context: Context) -> Any:
        chosen = RequestFilter.of(request)
        token = self._tokens.read_page_token(request, repr(chosen))
        after = _decode(token, Position) if token else None
        page = await self._records.requests.read_page(chosen, after, request.page_size or PAGE_SIZE)
        response = protocol.ListRequestsResponse(requests=page.requests)
        if page.position is not None:
            last = msgspec.json.encode(page.position).decode()
            response.next_page_token = self._tokens.mint_page_token(request, repr(chosen), last)
        return response


class _ListEvents:
    def __init__(self, records: Records, tokens: RequestTokens) -> None:
        self._records = records
        self._tokens = tokens

    async def handle(self, request: protocol.ListEventsRequest, _context: Context) -> Any:
        chosen, content = EventFilter.of(request), read_content(request)
        if chosen.until_version and not chosen.stream:
            violations = {"until_version": "needs a stream"}
            raise RpcError("REQUEST_INVALID", "until_version: needs a stream", violations=violations)
        chosen = await self._apply_as_of(chosen, read_time(request, "as_of"))
        token = self._tokens.read_page_token(request, repr(chosen))
        incarnation, until = await self._find_end(chosen)
        after = 0 if chosen.stream else chosen.after_position
        if token:
            minted_for, after = _decode(token, tuple[str, int])
            if minted_for != incarnation:  # positions name other events since PostgreSQL was restored
                raise invalid_page_token("OUTDATED")
        size = request.page_size or PAGE_SIZE
        page = await self._records.events.read_page(chosen, after, until, size, content)
        response = protocol.ListEventsResponse(events=page.events)
        if not page.is_last:
            last = msgspec.json.encode((incarnation, page.scanned_to)).decode()
            response.next_page_token = self._tokens.mint_page_token(request, repr(chosen), last)
        return response

    async def _apply_as_of(self, chosen: EventFilter, as_of: datetime | None) -> EventFilter:
        """Return the filter with the end that a version or a time names, once that is checked."""
        database = self._records.database
        if chosen.stream and (chosen.until_version or as_of):
            version, _ = await find_version(database, chosen.stream, chosen.until_version, as_of)
            return replace(chosen, until_version=version)
        if as_of is None:
            return chosen
        await check_time(database, as_of)
        ends = [as_of + timedelta(microseconds=1), *([chosen.until_time] if chosen.until_time else [])]
        return replace(chosen, until_time=min(ends))

    async def _find_end(self, chosen: EventFilter) -> tuple[str, int]:
        if chosen.stream:
            return await self._records.settled.read_incarnation(), NO_POSITION
        return await self._records.settled.find()


def _decode(token: str, type_: Any) -> Any:
    try:
        return msgspec.json.decode(token, type=type_)
    except msgspec.MsgspecError:
        raise invalid_page_token() from None


Send = Callable[[Records, Any], AsyncIterator[Any]]
"""Yields the responses of a streaming method."""


def _stream(records: Records, limit: CallLimit, responses: Send) -> Handler:
    async def handle(request: Any, context: Context) -> None:
        with limit.take_place(), report_unavailable():
            async with aclosing(responses(records, request)) as sent:  # type: ignore[type-var]
                async for response in sent:
                    await context.write(response)

    return handle


async def _tail(
    records: Records, request: protocol.TailEventsRequest
) -> AsyncIterator[protocol.TailEventsResponse]:
    after = request.after_position if request.HasField("after_position") else None
    async for sent in records.tail.tail(EventFilter.of(request), after, read_content(request)):
        yield protocol.TailEventsResponse(events=sent.page.events, position=sent.position)


async def _export(
    records: Records, request: protocol.ExportEventsRequest
) -> AsyncIterator[protocol.ExportEventsResponse]:
    sent: SentEvents
    chosen, ends = EventFilter.of(request), (request.after_position, request.until_position)
    async for sent in records.tail.export(chosen, *ends, read_content(request)):
        yield protocol.ExportEventsResponse(
            events=sent.page.events, position=sent.position, until_position=sent.until
        )


def _create_get_state(records: Records) -> Handler:
    async def get_state(request: protocol.GetStateRequest, context: Context) -> protocol.GetStateResponse:
        return await records.states.fold(request, context.time_remaining(), read_content(request))

    return get_state
