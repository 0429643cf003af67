"""Queries about sagas with consistency tokens and page tokens, the common part of all QueryServices here."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from typing import Any, TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from process_manager.freshness import Freshness
from process_manager.saga import Saga
from process_manager.saga_reader import SagaReader
from process_manager.saga_records import ListPosition, SagaDetails, SagaFilter, SagaRow
from runtime import jetstream
from runtime.grpc.request_tokens import RequestTokens, invalid_page_token
from runtime.grpc.rpc_error import RpcError

PAGE_SIZE = 20
"""Entries on a page unless the request sets another size."""

M = TypeVar("M")


class SagaQueries:
    """Reads the instances of the sagas that this process runs.

    Args:
        sagas: their definitions.
        reader: reads the rows.
        freshness: delays queries with a consistency token until the sagas are up to date.
        tokens: mints and reads page tokens.
    """

    def __init__(
        self, sagas: Iterable[Saga[Any]], reader: SagaReader, freshness: Freshness, tokens: RequestTokens
    ) -> None:
        self.sagas = {saga.name: saga for saga in sagas}
        """The definitions by name."""
        self._reader = reader
        self._freshness = freshness
        self._tokens = tokens

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
            await self._freshness.wait_for(definition, request.at_least_as_fresh, remaining)
            return await self._reader.find(saga, id_)

    async def list_page(
        self, saga: str, filter_: SagaFilter, request: Any, *, remaining: float | None
    ) -> tuple[Sequence[SagaRow], str]:
        """Return a page of instances, and the token of the next page, empty on the last one.

        Args:
            saga: the saga's name; empty for all sagas.
            filter_: selects instances.
            request: a message with `page_size`, `page_token` and `at_least_as_fresh`.
            remaining: seconds until the call's deadline; None without a deadline.

        Raises:
            RpcError: `SAGA_UNKNOWN`, `READ_MODEL_UNAVAILABLE`, or an error of a token.
        """
        chosen = self._choose(saga)
        list_id, size = f"{saga} {astuple(filter_)}", request.page_size or PAGE_SIZE
        after = _parse_position(self._tokens.read_page_token(request, list_id))
        with _report_unavailable():
            for definition in chosen:
                await self._freshness.wait_for(definition, request.at_least_as_fresh, remaining)
            names = [definition.name for definition in chosen]
            rows = await self._reader.read_page(names, filter_, after=after, limit=size + 1)
        page = rows[:size]
        if len(rows) == len(page):
            return page, ""
        last = msgspec.json.encode(page[-1].position).decode()
        return page, self._tokens.mint_page_token(request, list_id, last)

    def _choose(self, saga: str) -> Sequence[Saga[Any]]:
        if not saga:
            return list(self.sagas.values())
        if saga not in self.sagas:
            raise RpcError.not_found("sagas", "SAGA_UNKNOWN", {"saga": saga, "known": ", ".join(self.sagas)})
        return [self.sagas[saga]]


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
        outcome=sent_step.outcome or "",
        tries=sent_step.tries,
        error=sent_step.error or "",
        **more,
    )
    step.decide_time.FromDatetime(sent_step.decided_at)
    if sent_step.answered_at:
        step.answer_time.FromDatetime(sent_step.answered_at)
    return step  # type: ignore[no-any-return]


def _parse_position(last: str) -> ListPosition | None:
    try:
        return msgspec.json.decode(last, type=ListPosition) if last else None
    except msgspec.MsgspecError:
        raise invalid_page_token() from None


@contextmanager
def _report_unavailable() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError, *jetstream.UNREACHABLE) as error:
        raise RpcError("READ_MODEL_UNAVAILABLE", "the sagas cannot be read", retry_after=1.0) from error
