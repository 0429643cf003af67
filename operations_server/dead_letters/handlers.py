"""`ListDeadLetters`, `GetDeadLetter`, `RetryDeadLetters` and `SkipDeadLetter`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from time import monotonic
from typing import Any

from diptych.operations.v1 import operations_service_pb2 as protocol
from redis.exceptions import RedisError

from operations_server.acts import OperatorActs
from operations_server.dead_letters.letter_events import LetterEvents
from operations_server.dead_letters.letters import DeadLetters, Letter, LetterFilter
from operations_server.dead_letters.retries import LetterRetries
from operations_server.dead_letters.saga_letters import SagaLetter
from operations_server.dead_letters.skips import LetterSkips
from operations_server.parked.parked_list import Position, decode_position, encode_position
from operations_server.records.content import read_content
from operations_server.records.database import report_unavailable
from operations_server.records.event_filter import read_time
from runtime.grpc.method import Context, Handler
from runtime.grpc.request_tokens import RequestTokens, invalid_page_token
from runtime.grpc.response_size import PageBudget
from runtime.grpc.rpc_error import RpcError

PAGE_SIZE = 50
SLICE_SIZE = 100
"""Dead letters that are retried by one call."""
MAX_READ = 1_000
"""Dead letters that a page reads at most, if a filter leaves out most of them."""
MAX_SECONDS = 5.0
"""Seconds after which a slice of retries ends: an operator waits for ten."""


class DeadLetterHandlers:
    """The handlers.

    Args:
        letters: lists dead letters.
        events: reads their events.
        retries: retries them.
        skips: skips them.
        tokens: mints and reads page tokens.
    """

    def __init__(
        self,
        letters: DeadLetters,
        events: LetterEvents,
        retries: LetterRetries,
        skips: LetterSkips,
        tokens: RequestTokens,
    ) -> None:
        self._letters = letters
        self._events = events
        self._retries = retries
        self._skips = skips
        self._tokens = tokens

    def create(self, acts: OperatorActs) -> Mapping[str, Handler]:
        """Return the handlers by the names of their methods; the acts are on record."""
        return {
            "SkipDeadLetter": acts.record("SkipDeadLetter", _report_failures(self._skip), name_skip),
            "ListDeadLetters": _report_failures(self._list),
            "GetDeadLetter": _report_failures(self._get),
            "RetryDeadLetters": acts.record("RetryDeadLetters", _report_failures(self._retry), name_filter),
        }

    async def _list(
        self, request: protocol.ListDeadLettersRequest, _context: Context
    ) -> protocol.ListDeadLettersResponse:
        filter_ = self._create_filter(request)
        page = _Page(request.page_size or PAGE_SIZE)
        response = protocol.ListDeadLettersResponse()
        if filter_.id:
            found = await self._letters.find(filter_)
            response.dead_letters.extend(letter.message for letter in found)
            return response
        budget, list_id = PageBudget(), repr(filter_)
        last = self._read_token(request, list_id)
        async with aclosing(self._letters.read_after(filter_, last)) as letters:
            async for letter in letters:
                selected = filter_.selects(letter)
                if page.is_full or (selected and not budget.take(letter.message.ByteSize())):
                    response.next_page_token = self._mint_token(request, list_id, last)
                    return response
                if selected:
                    response.dead_letters.append(letter.message)
                last = page.add(letter, selected)
        return response

    async def _get(
        self, request: protocol.GetDeadLetterRequest, _context: Context
    ) -> protocol.GetDeadLetterResponse:
        content = read_content(request)
        letters = await self._letters.find(self._create_filter(request))
        if not letters:
            metadata = {"id": request.id, "projection": request.projection, "saga": request.saga}
            raise RpcError.not_found("operations", "DEAD_LETTER_NOT_FOUND", metadata)
        details = await self._events.describe([letter.message for letter in letters], content)
        return protocol.GetDeadLetterResponse(dead_letters=details)

    async def _retry(
        self, request: protocol.RetryDeadLettersRequest, _context: Context
    ) -> protocol.RetryDeadLettersResponse:
        filter_ = self._create_filter(request)
        response = protocol.RetryDeadLettersResponse()
        parked = list[Letter]()
        if filter_.id:
            for letter in await self._letters.find(filter_):
                await self._retry_letter(letter, parked, response)
        else:
            await self._retry_slice(filter_, request, parked, response)
        retried, refused = await self._retries.retry_parked(parked)
        response.retried += retried
        response.refused.extend(refused)
        return response

    async def _retry_slice(
        self,
        filter_: LetterFilter,
        request: protocol.RetryDeadLettersRequest,
        parked: list[Letter],
        response: protocol.RetryDeadLettersResponse,
    ) -> None:
        list_id, end = repr(filter_), monotonic() + MAX_SECONDS
        last = self._read_token(request, list_id)
        page = _Page(request.page_size or SLICE_SIZE)
        async with aclosing(self._letters.read_after(filter_, last)) as letters:
            async for letter in letters:
                if page.is_full or monotonic() > end:
                    response.next_page_token = self._mint_token(request, list_id, last)
                    return
                if selected := filter_.selects(letter):
                    await self._retry_letter(letter, parked, response)
                last = page.add(letter, selected)

    async def _retry_letter(
        self,
        letter: Letter,
        parked: list[Letter],
        response: protocol.RetryDeadLettersResponse,
    ) -> None:
        """Retry a saga's dead letter, and collect that of a projection."""
        if not isinstance(letter.source, SagaLetter):
            parked.append(letter)
        elif refused := await self._retries.retry_saga(letter.source, letter.message):
            response.refused.append(refused)
        else:
            response.retried += 1

    async def _skip(
        self, request: protocol.SkipDeadLetterRequest, _context: Context
    ) -> protocol.SkipDeadLetterResponse:
        if bool(request.projection) == bool(request.saga):
            violations = {"projection": "set either a projection or a saga"}
            raise RpcError("REQUEST_INVALID", "projection: set either it or a saga", violations=violations)
        letter = _choose(request, await self._letters.find(self._create_filter(request)))
        await self._skips.skip(letter, request.reason)
        return protocol.SkipDeadLetterResponse(dead_letter=letter.message)

    def _create_filter(self, request: Any) -> LetterFilter:
        """Return the filter of a request.

        Raises:
            RpcError: `PROJECTION_UNKNOWN`, `SAGA_UNKNOWN`.
        """
        projections, sagas = self._retries.projections, self._letters.saga_names
        if request.projection and request.projection not in projections:
            raise RpcError.not_found("operations", "PROJECTION_UNKNOWN", {"projection": request.projection})
        if request.saga and request.saga not in sagas:
            metadata = {"saga": request.saga, "known": ", ".join(sagas)}
            raise RpcError.not_found("operations", "SAGA_UNKNOWN", metadata)
        chosen_projections = [name for name in projections if request.projection in ("", name)]
        chosen_sagas = [name for name in sagas if request.saga in ("", name)]
        has_since = "since_before" in request.DESCRIPTOR.fields_by_name
        return LetterFilter(
            [] if request.saga else chosen_projections,
            [] if request.projection else chosen_sagas,
            request.id,
            getattr(request, "error", ""),
            read_time(request, "since_before") if has_since else None,
        )

    def _read_token(self, request: Any, list_id: str) -> Position | None:
        token = self._tokens.read_page_token(request, list_id)
        try:
            return decode_position(token) if token else None
        except ValueError:
            raise invalid_page_token() from None

    def _mint_token(self, request: Any, list_id: str, last: Position | None) -> str:
        return self._tokens.mint_page_token(request, list_id, encode_position(last) if last else "")


def _choose(request: protocol.SkipDeadLetterRequest, letters: Sequence[Letter]) -> Letter:
    """Return the dead letter that a request names.

    Raises:
        RpcError: `DEAD_LETTER_NOT_FOUND`, `DEAD_LETTER_AT_OTHER_VERSION`, `DEAD_LETTER_AMBIGUOUS`.
    """
    metadata = {"id": request.id, "version": str(request.version)}
    of_stream = [each for each in letters if request.stream in ("", each.message.stream)]
    if not of_stream:
        raise RpcError.not_found("operations", "DEAD_LETTER_NOT_FOUND", metadata)
    chosen = [each for each in of_stream if each.message.version == request.version]
    events = {"events": ", ".join(f"{each.message.stream}@{each.message.version}" for each in of_stream)}
    if not chosen:
        raise RpcError.of_rule("operations", "DEAD_LETTER_AT_OTHER_VERSION", metadata | events)
    if len(chosen) > 1:
        raise RpcError.of_rule("operations", "DEAD_LETTER_AMBIGUOUS", metadata | events)
    return chosen[0]


class _Page:
    """Counts the dead letters of a page, and those that were read for it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._selected = self._read = 0

    @property
    def is_full(self) -> bool:
        return self._selected == self._size or self._read == MAX_READ

    def add(self, letter: Letter, selected: bool) -> Position:
        self._read += 1
        self._selected += selected
        return letter.position


@contextmanager
def _report_redis_unavailable() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise RpcError("READ_MODEL_UNAVAILABLE", "Redis cannot be read", retry_after=1.0) from error


def _report_failures(handler: Handler) -> Handler:
    async def handle(request: Any, context: Context) -> Any:
        with report_unavailable(), _report_redis_unavailable():
            return await handler(request, context)

    return handle


def name_filter(request: protocol.RetryDeadLettersRequest) -> str:
    """Return what a retry is about, for people."""
    parts = [request.projection or request.saga, request.id]
    if request.error:
        parts.append(f"with {request.error!r}")
    if request.HasField("since_before"):
        parts.append(f"since before {request.since_before.ToJsonString()}")
    return " ".join(filter(None, parts)) or "all"


def name_skip(request: protocol.SkipDeadLetterRequest) -> str:
    """Return what a skip is about, for people."""
    return f"{request.projection or request.saga} {request.id} version {request.version}"
