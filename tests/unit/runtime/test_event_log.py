"""The log that the cursors of a process share: which messages it keeps, and who may join it."""

from collections.abc import Iterable, Sequence

import pytest

from runtime.jetstream import Limits, Message
from runtime.jetstream.event_log import EventLog, LateMessage

LIMITS = Limits(messages=100, size=1_000, retained_messages=10, retained_size=500)


def messages(sequences: Iterable[int], size: int = 1) -> list[Message]:
    return [Message("diptych.events.3.a.b.c", {}, b"x" * size, sequence, 0, None) for sequence in sequences]


def append(log: EventLog, lane: int, arrived: Sequence[Message]) -> set[tuple[str, int]]:
    return log.append(lane, arrived, [None] * len(arrived), {})


def test_a_log_covers_the_positions_whose_next_message_it_has_or_awaits() -> None:
    log = EventLog("epoch", [11], LIMITS)
    assert [position for position in range(200) if log.covers(0, position)] == list(range(10, 111))
    append(log, 0, messages(range(11, 131)))
    log.trim(returned=120)
    assert log.messages[0].sequence == log.bases[0] + 1 > 11
    assert not log.covers(0, log.messages[0].sequence - 2)  # it lacks the message behind this position
    assert log.covers(0, log.messages[0].sequence - 1)
    assert log.covers(0, 130)


def test_returned_messages_are_removed_up_to_the_latest() -> None:
    log = EventLog("epoch", [1], LIMITS)
    append(log, 0, messages(range(1, 51)))
    log.trim(returned=0)
    assert len(log.messages) == 50
    log.trim(returned=30)
    assert log.messages[0].sequence == 31
    log.trim(returned=50)
    assert [message.sequence for message in log.messages] == list(range(41, 51))
    assert (log.first, log.next, log.bases) == (40, 50, [40])


def test_messages_that_were_not_returned_are_removed_beyond_the_limits() -> None:
    log = EventLog("epoch", [1], LIMITS)
    append(log, 0, messages(range(1, 121)))
    log.trim(returned=0)
    assert 100 <= len(log.messages) <= 105  # chunks of a twentieth
    append(log, 0, messages([121], size=990))
    log.trim(returned=0)
    assert sum(1 for _ in log.messages) == 11
    append(log, 0, messages([122], size=2_000))
    log.trim(returned=0)
    assert log.messages == []
    assert (log.first, log.next, log.bases) == (122, 122, [122])


def test_each_lane_knows_what_the_log_has_of_it() -> None:
    log = EventLog("epoch", [1, 1], LIMITS)
    assert append(log, 0, messages([4, 9])) == {("a.b", 3)}
    append(log, 1, messages([6]))
    log.confirm_end(1, 8)
    log.confirm_end(0, 8)
    assert (log.bases, log.ends) == ([0, 0], [9, 8])
    assert [log.exceeds(number, 1, 1_000) for number in range(4)] == [True, True, False, False]


def test_an_event_that_could_not_be_decoded_is_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog("epoch", [1], LIMITS)
    append(log, 0, messages([1]))

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patches:
        patches.setattr("runtime.jetstream.event_log.decode_event", fail)
        for _ in range(2):
            with pytest.raises(MemoryError):
                _ = log.messages[0].event


@pytest.mark.parametrize("sequence", [3, 8])
def test_a_message_at_or_below_the_end_is_refused(sequence: int) -> None:
    log = EventLog("epoch", [1, 1], LIMITS)
    append(log, 0, messages([3]))
    log.confirm_end(0, 8)
    with pytest.raises(LateMessage):
        append(log, 0, messages([sequence, 9]))
    assert log.next == 1
    append(log, 1, messages([sequence]))


@pytest.mark.parametrize("subject", ["3", "3.a.b", "x.a.b.c", "16.a.b.c", "03.a.b.c", "3.a.b.c.d"])
def test_a_message_under_no_events_subject_belongs_to_no_partition(subject: str) -> None:
    log = EventLog("epoch", [1], LIMITS)
    assert append(log, 0, [Message(f"diptych.events.{subject}", {}, b"", 1, 0, None)]).pop()[1] == -1
