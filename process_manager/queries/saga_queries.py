"""Queries about sagas with consistency tokens and page tokens."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from datetime import UTC
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message
from sqlalchemy.exc import SQLAlchemyError

from process_manager.queries.freshness import Freshness
from process_manager.queries.saga_reader import SagaReader
from process_manager.queries.saga_records import ListPosition, SagaDetails, SagaFilter, SagaRow
from process_manager.queries.staleness import include_sagas
from process_manager.saga import Saga
from runtime import jetstream
from runtime.grpc.request_tokens import RequestTokens, invalid_page_token
from runtime.grpc.response_size import MAX_PAGE_BYTES, PageBudget
from runtime.grpc.rpc_error import RpcError

PAGE_SIZE = 20
"""Entries on a page unless the request sets another size."""

MAX_TEXT_LENGTH = 1_000
"""Characters of an error or a reason in a response; the rest is cut off."""

_BUGS = ("21", "22")
"""Classes of SQLSTATE of values that a query should not have: a repetition would get the same."""

M = TypeVar("M", bound=Message)


class SagaQueries:
    """Reads the instances of the sagas that this process runs.

    Args:
        sagas: their definitions.
        reader: reads the rows.
        freshness: delays queries with a consistency token until the sagas are up to date.
        tokens: mints and reads page tokens.
        max_page_bytes: the maximum size of the instances, or of the steps of one, in a response.
    """

    def __init__(
        self,
        sagas: Iterable[Saga[Any]],
        reader: SagaReader,
        freshness: Freshness,
        tokens: RequestTokens,
        max_page_bytes: int = MAX_PAGE_BYTES,
    ) -> None:
        self.sagas = {saga.name: saga for saga in sagas}
        """The definitions by name."""
        self._reader = reader
        self._freshness = freshness
        self._tokens = tokens
        self._max_page_bytes = max_page_bytes

    async def find(self, saga: str, id_: str, request: Any, *, remaining: float | None) -> SagaDetails | None:
        """Return an instance, or None if there is none of this id.

        Args:
            saga: the saga's name.
            id_: the instance's id.
            request: a message with `at_least_as_fresh`.
            remaining: seconds until the call's deadline; None without a deadline.

        Raises:
            RpcError: `SAGA_UNKNOWN`, `READ_MODEL_UNAVAILABLE`, or an error of the token.
        """
        (definition,) = self._choose(saga)
        with _report_unavailable():
            await self._freshness.wait_for([definition], request.at_least_as_fresh, remaining)
            return await self._reader.find(saga, id_)

    async def list_page(
        self,
        saga: str,
        filter_: SagaFilter,
        request: Any,
        describe: Callable[[SagaRow], M],
        *,
        remaining: float | None,
    ) -> tuple[Sequence[M], str]:
        """Return a page of instances, and the token of the next page, empty on the last one.

        A page ends before it becomes too large for a response, so it may hold fewer instances than requested.

        Args:
            saga: the saga's name; empty for all sagas.
            filter_: selects instances.
            request: a message with `page_size`, `page_token` and `at_least_as_fresh`.
            describe: returns the message of an instance.
            remaining: seconds until the call's deadline; None without a deadline.

        Raises:
            RpcError: `SAGA_UNKNOWN`, `READ_MODEL_UNAVAILABLE`, or an error of a token.
        """
        chosen = self._choose(saga)
        list_id, size = f"{saga} {astuple(filter_)}", request.page_size or PAGE_SIZE
        after = parse_position(self._tokens.read_page_token(request, list_id))
        with _report_unavailable():
            await self._freshness.wait_for(chosen, request.at_least_as_fresh, remaining)
            names = [definition.name for definition in chosen]
            messages, last = await self._read_page(names, filter_, describe, after, size)
        if last is None:
            return messages, ""
        return messages, self._tokens.mint_page_token(request, list_id, msgspec.json.encode(last).decode())

    async def _read_page(
        self,
        names: Sequence[str],
        filter_: SagaFilter,
        describe: Callable[[SagaRow], M],
        after: ListPosition | None,
        size: int,
    ) -> tuple[list[M], ListPosition | None]:
        """Return the messages of a page, and the position of its last instance; None on the last page."""
        messages: list[M] = []
        budget = PageBudget(self._max_page_bytes)
        while len(messages) < size:
            count = budget.plan_read(size - len(messages))
            # One row more than needed shows whether there is a next page.
            rows = await self._reader.read_page(names, filter_, after=after, limit=count + 1)
            for row in rows[:count]:
                message = describe(row)
                if not budget.take(message.ByteSize()):
                    return messages, after
                messages.append(message)
                after = row.position
            if len(rows) <= count:
                return messages, None
        return messages, after

    def _choose(self, saga: str) -> Sequence[Saga[Any]]:
        include_sagas([saga] if saga else self.sagas)
        if not saga:
            return list(self.sagas.values())
        if saga not in self.sagas:
            raise RpcError.not_found("sagas", "SAGA_UNKNOWN", {"saga": saga, "known": ", ".join(self.sagas)})
        return [self.sagas[saga]]

    def select_latest(self, messages: Sequence[M], share: float) -> tuple[Sequence[M], int]:
        """Return the last of an instance's steps, timers or actions that fit, and the number omitted.

        Args:
            messages: the most important last.
            share: the part of the response that they may take.
        """
        return select_latest(messages, int(self._max_page_bytes * share))


def select_latest(messages: Sequence[M], max_bytes: int) -> tuple[Sequence[M], int]:
    """Return the last of these messages that fit into a number of bytes, and the number omitted."""
    budget = PageBudget(max_bytes)
    count = 0
    for message in reversed(messages):
        if not budget.take(message.ByteSize()):
            break
        count += 1
    omitted = len(messages) - count
    return messages[omitted:], omitted


def cut(text: str) -> str:
    """Return a text for people, shortened to MAX_TEXT_LENGTH."""
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "…"


def build_step(step_class: Callable[..., M], sent_step: Any, **more: Any) -> M:
    """Return the message of a step.

    Args:
        step_class: `Step` of `diptych.sagas.v1`, or of an older service with the same fields.
        sent_step: the step.
        more: further fields.
    """
    is_query = sent_step.method.split(".")[-1].startswith("QueryService")
    step: Any = step_class(
        name=sent_step.step,
        attempt=sent_step.attempt,
        method=sent_step.method,
        request_id="" if is_query else str(sent_step.request_id),
        outcome=cut(sent_step.outcome or ""),
        tries=sent_step.tries,
        error=cut(sent_step.error or ""),
        **more,
    )
    step.decide_time.FromDatetime(sent_step.decided_at)
    if sent_step.answered_at:
        step.answer_time.FromDatetime(sent_step.answered_at)
    return step  # type: ignore[no-any-return]


def parse_position(last: str) -> ListPosition | None:
    """Return the position in a page token; None for the first page.

    Raises:
        RpcError: `PAGE_TOKEN_INVALID`.
    """
    try:
        if not last:
            return None
        due_at, began_at, id_, saga = msgspec.json.decode(last, type=ListPosition)
        return due_at.astimezone(UTC), began_at.astimezone(UTC), id_, saga
    except (msgspec.MsgspecError, OverflowError):  # a time zone can move a time out of the calendar
        raise invalid_page_token() from None


@contextmanager
def _report_unavailable() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError, *jetstream.UNREACHABLE) as error:
        # Errors of the driver, for instance of a closed connection, have a state of None.
        state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
        if state[:2] in _BUGS:
            raise
        raise RpcError("READ_MODEL_UNAVAILABLE", "the sagas cannot be read", retry_after=1.0) from error
