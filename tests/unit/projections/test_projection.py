"""Projections, and the fold of records by them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import Message

from contracts.envelope import RecordedEvent
from contracts.event_types import UnknownEvent
from contracts.view_layout import View
from projector.fold import EventsMissing, fold
from projector.projection import Entry, Projection
from projector.records import Record
from tests.support.ledger.events import EVENTS
from tests.support.ledger.histories import endorsed, voided, written
from tests.support.ledger.projections import CHEQUES
from tests.support.ledger.stubs import events
from tests.support.ledger.stubs import types as views

VIEW = View.of(views.Cheque)
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def recorded(version: int, event: Message, type_: str = "") -> RecordedEvent:
    name = type_ or event.DESCRIPTOR.full_name
    return RecordedEvent("ledger.cheque.c-1", version, name, event.SerializeToString(), AT, version, {})


def view_of(*messages: Message) -> Any:
    run = [recorded(version, event) for version, event in enumerate(messages, 1)]
    rendered, done, error = CHEQUES.fold(views.Cheque(), run)
    assert (done, error) == (len(messages), None)
    assert rendered is not None
    return rendered.message


class TestAProjection:
    def test_lets_handlers_change_a_private_copy(self) -> None:
        before = views.Cheque(cheque_id="c-1")
        CHEQUES.fold(before, [recorded(1, written("c-1"))])
        assert before == views.Cheque(cheque_id="c-1")

    def test_advances_over_events_that_have_no_handler(self) -> None:
        idle = Projection[Any](VIEW, events=EVENTS)
        rendered, done, error = idle.fold(views.Cheque(cheque_id="c-1"), [recorded(7, endorsed("c-1"))])
        assert rendered is not None
        assert (rendered.message, done, error) == (views.Cheque(cheque_id="c-1", version=7), 1, None)

    def test_cannot_apply_an_event_that_it_was_not_built_with(self) -> None:
        newer = recorded(2, endorsed("c-1"), "acme.ledger.v1.ChequeMislaid")
        rendered, done, error = CHEQUES.fold(views.Cheque(), [recorded(1, written("c-1")), newer])
        assert rendered is not None
        assert (rendered.message, done) == (view_of(written("c-1")), 1)
        assert isinstance(error, UnknownEvent)

    def test_keeps_the_events_before_one_that_fails(self) -> None:
        bad = RecordedEvent("ledger.cheque.c-1", 2, "acme.ledger.v1.ChequeEndorsed", b"\xff", AT, 2, {})
        rendered, done, error = CHEQUES.fold(
            views.Cheque(), [recorded(1, written("c-1")), bad, recorded(3, voided("c-1"))]
        )
        assert rendered is not None
        assert (rendered.message, done) == (view_of(written("c-1")), 1)
        assert error is not None

    def test_keeps_no_change_of_a_handler_that_fails_halfway(self) -> None:
        fragile = Projection[Any](VIEW, events=EVENTS)

        @fragile.on(events.ChequeVoided)
        def fails(cheque: Any, event: Any) -> None:
            cheque.void_reason = event.reason
            raise RuntimeError("halfway")

        first = [recorded(1, written("c-1")), recorded(2, voided("c-1"))]
        rendered, done, error = fragile.fold(views.Cheque(), first)
        assert rendered is not None
        assert (rendered.message, done, str(error)) == (views.Cheque(version=1), 1, "halfway")

    def test_blames_an_event_after_which_the_view_cannot_be_rendered(self) -> None:
        def entries(cheque: Any) -> list[Entry]:
            if cheque.state == views.Cheque.STATE_VOIDED:
                raise ValueError("no index")
            return []

        unindexed = Projection[Any](VIEW, events=EVENTS, indexes=entries)

        @unindexed.on(events.ChequeVoided)
        def void(cheque: Any, event: Any) -> None:
            cheque.state = views.Cheque.STATE_VOIDED

        run = [recorded(1, written("c-1")), recorded(2, voided("c-1")), recorded(3, endorsed("c-1"))]
        rendered, done, error = unindexed.fold(views.Cheque(), run)
        assert rendered is not None
        assert (rendered.message.version, done, str(error)) == (1, 1, "no index")

    def test_returns_no_view_when_the_first_event_fails(self) -> None:
        newer = recorded(1, endorsed("c-1"), "acme.ledger.v1.ChequeMislaid")
        rendered, done, error = CHEQUES.fold(views.Cheque(), [newer])
        assert (rendered, done) == (None, 0)
        assert isinstance(error, UnknownEvent)

    def test_refuses_two_handlers_of_one_event(self) -> None:
        with pytest.raises(ValueError, match=r"has a handler of .*ChequeVoided"):
            CHEQUES.on(events.ChequeVoided)

    def test_refuses_a_handler_of_an_older_version_and_names_the_newest(self) -> None:
        with pytest.raises(ValueError, match=r"its newest version, acme\.ledger\.v2\.ChequeWritten"):
            CHEQUES.on(events.ChequeWritten)

    def test_refuses_a_handler_of_a_message_that_is_not_an_event(self) -> None:
        with pytest.raises(ValueError, match="Account"):
            CHEQUES.on(views.Account)

    @pytest.mark.parametrize("column", ["version", "parked", "no_such_field", "endorsers", "attachment"])
    def test_refuses_columns_that_are_unreadable_or_reserved(self, column: str) -> None:
        with pytest.raises(ValueError, match="column"):
            Projection[Any](VIEW, events=EVENTS, columns=(column,))


def blank() -> Record:
    return Record("c-1", views.Cheque())


class TestFold:
    def test_takes_events_in_the_order_of_their_versions_each_once(self) -> None:
        first, second, third = (
            recorded(n, e) for n, e in enumerate((written("c-1"), endorsed("c-1"), voided("c-1")), 1)
        )
        result = fold(CHEQUES, blank(), [third, first, second, first])
        assert result.applied_events == [first, second, third]
        assert (result.record.version, result.record.revision, result.error) == (3, 1, None)

    def test_ignores_events_that_were_applied_before(self) -> None:
        record = fold(CHEQUES, blank(), [recorded(1, written("c-1")), recorded(2, endorsed("c-1"))]).record
        repeated = fold(CHEQUES, record, [recorded(1, written("c-1")), recorded(2, endorsed("c-1"))])
        assert repeated.record is record
        assert (repeated.content, repeated.applied_events, repeated.error) == (None, [], None)

    def test_stops_at_a_gap(self) -> None:
        result = fold(CHEQUES, blank(), [recorded(1, written("c-1")), recorded(3, voided("c-1"))])
        assert result.record.version == 1
        assert isinstance(result.error, EventsMissing)
        assert str(result.error) == "event 2 is missing before event 3"
