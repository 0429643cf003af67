"""`ListSagas`: pages of instances, each read in bounded time whatever the history.

How it works. Instances are listed in the order of their due times, the longest overdue first. Rows are
compared with the filter slice by slice, in the order of an index, and a page ends after PAGE_TIME, also
without a single instance: the next page continues after the last row that was compared. With a term,
instances come from the first events that have it, the latest first.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC
from time import monotonic
from typing import Any

import msgspec
from diptych.operations.v1 import operations_service_pb2 as protocol
from diptych.sagas.v1.types_pb2 import Saga as SagaMessage

from operations_server.sagas.scans import SagaFilter, SagaScanner
from operations_server.sagas.term_search import TermSearch
from process_manager.queries.query_service import describe_row
from process_manager.queries.saga_queries import parse_position
from process_manager.queries.saga_records import SagaRow
from process_manager.saga import Saga
from runtime.grpc.request_tokens import RequestTokens, invalid_page_token
from runtime.grpc.response_size import PageBudget
from runtime.grpc.rpc_error import RpcError

PAGE_SIZE = 50
"""Entries on a page unless the request sets another size."""
PAGE_TIME = 0.4
"""Seconds after which a page ends."""


class SagaLists:
    """Lists instances.

    Args:
        sagas: the definitions by name.
        scanner: reads rows.
        search: finds instances by terms.
        tokens: mints and reads page tokens.
    """

    def __init__(
        self,
        sagas: Mapping[str, Saga[Any]],
        scanner: SagaScanner,
        search: TermSearch,
        tokens: RequestTokens,
    ) -> None:
        self._sagas = sagas
        self._scanner = scanner
        self._search = search
        self._tokens = tokens

    async def list_page(self, request: protocol.ListSagasRequest) -> protocol.ListSagasResponse:
        """Return a page.

        Raises:
            RpcError: `SAGA_UNKNOWN`, `PAGE_TOKEN_INVALID`, `REQUEST_INVALID`.
        """
        if request.saga and request.saga not in self._sagas:
            metadata = {"saga": request.saga, "known": ", ".join(self._sagas)}
            raise RpcError.not_found("operations", "SAGA_UNKNOWN", metadata)
        names = [request.saga] if request.saga else list(self._sagas)
        filter_ = read_filter(request)
        list_id = f"{request.saga} {request.term} {filter_}"
        token = self._tokens.read_page_token(request, list_id)
        page = _Page(request.page_size or PAGE_SIZE, self._sagas)
        fill = self._fill_by_term if request.term else self._fill
        last = await fill(page, names, filter_, request.term, token)
        next_token = self._tokens.mint_page_token(request, list_id, last) if last else ""
        return protocol.ListSagasResponse(sagas=page.messages, next_page_token=next_token)

    async def _fill(
        self, page: "_Page", names: Sequence[str], filter_: SagaFilter, _term: str, token: str
    ) -> str:
        """Add the next instances; return the position of the last, empty for the last page."""
        after = parse_position(token)
        while True:
            part = await self._scanner.read_slice(names, filter_, after)
            rows = await self._scanner.read_rows(part.keys[: page.missing])
            for key, position in zip(part.keys, part.positions, strict=True):
                if page.is_full or not page.add(rows.get(key)):
                    return msgspec.json.encode(after).decode()
                after = position
            after = part.scanned_to
            if after is None:
                return ""
            if page.is_over:
                return msgspec.json.encode(after).decode()

    async def _fill_by_term(
        self, page: "_Page", names: Sequence[str], filter_: SagaFilter, term: str, token: str
    ) -> str:
        """Add the next instances about a term; return the position of the last, empty for the last page."""
        last = first = _parse_term_position(token) if token else None
        async for found in self._search.search(term, last[0] if last else None):
            keys = sorted(found.instances, key=lambda each: (-each[0], each[1]))
            rows = await self._scanner.read_rows([key for _, key in keys if key[0] in names], filter_)
            for position, key in keys:
                if first and position == first[0] and key[0] <= first[1]:
                    continue  # on the page before
                if page.is_full or not page.add(rows.get(key)):
                    return msgspec.json.encode(last).decode()
                last = position, key[0]
            last = found.scanned_to, ""
            if page.is_over and found.scanned_to > 0:
                return msgspec.json.encode(last).decode()
        return ""


class _Page:
    """The messages of one page.

    Args:
        size: the maximum number of instances.
        sagas: the definitions by name.
    """

    def __init__(self, size: int, sagas: Mapping[str, Saga[Any]]) -> None:
        self.messages: list[SagaMessage] = []
        self._size = size
        self._sagas = sagas
        self._budget = PageBudget()
        self._end = monotonic() + PAGE_TIME

    @property
    def missing(self) -> int:
        return self._size - len(self.messages)

    @property
    def is_full(self) -> bool:
        return not self.missing

    @property
    def is_over(self) -> bool:
        return self.is_full or monotonic() > self._end

    def add(self, row: SagaRow | None) -> bool:
        """Add an instance, unless it has gone; return False if the page is too large for it."""
        if row is None:
            return True
        definition = self._sagas.get(row.saga)
        message = describe_row(row, definition.own_type if definition else "")
        if not self._budget.take(message.ByteSize()):
            return False
        self.messages.append(message)
        return True


def read_filter(request: protocol.ListSagasRequest) -> SagaFilter:
    """Return the filter of a request.

    Raises:
        RpcError: `REQUEST_INVALID`.
    """
    began_before = None
    if request.HasField("began_before"):
        try:
            began_before = request.began_before.ToDatetime(UTC)
        except (ValueError, OverflowError):
            violations = {"began_before": "is not a time of the years 1 to 9999"}
            raise RpcError("REQUEST_INVALID", "began_before: not a time", violations=violations) from None
    return SagaFilter(
        request.state,
        request.open_only,
        request.blocked_only,
        request.overdue_only,
        request.error,
        began_before,
    )


def _parse_term_position(token: str) -> tuple[int, str]:
    """Return the position of the next first event, and the saga whose instance was listed last of it."""
    try:
        return msgspec.json.decode(token, type=tuple[int, str])
    except msgspec.MsgspecError:
        raise invalid_page_token() from None
