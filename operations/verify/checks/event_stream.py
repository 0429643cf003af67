"""The JetStream stream against the events in PostgreSQL."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice

from contracts import streams
from operations.verify.model import Problem
from operations.verify.sources import PAGE_SIZE, Sources, StoredStream, StrayMessage, StreamContents


async def check_identity(contents: StreamContents, incarnation: str) -> Sequence[Problem]:
    """Check that there is a stream, that it belongs to this database, and that it is whole.

    Args:
        contents: the stream.
        incarnation: of the database.
    """
    stream = await contents.read_identity()

    def problem(text: str, *, transient: bool = True) -> list[Problem]:
        return [Problem("stream", f"stream {streams.JETSTREAM}", text, transient)]

    if stream is None:
        return problem("missing; the relay creates it")
    if stream.incarnation != incarnation:
        return problem(f"incarnation {stream.incarnation}, the database has {incarnation}")
    if not stream.complete:
        return problem("incomplete; the relay is still publishing earlier events")
    if not stream.intact:
        return problem(f"holds {stream.messages} of {stream.last_sequence} messages", transient=False)
    return ()


def describe_stray(message: StrayMessage) -> Problem:
    """Return the finding for a message that fits no event."""
    if message.first_sequence:
        text = f"duplicate of event {message.event_id}, first published as message {message.first_sequence}"
    else:
        text = f"not published by a relay: subject {message.subject}, position {message.position!r}"
    return Problem("stream", f"message {message.sequence}", text)


def compare_events(contents: StreamContents, stored: StoredStream, counts: Counter[str]) -> Iterator[Problem]:
    """Check that the stream holds each event of an aggregate once, in order, byte for byte.

    An event whose message housekeeping has removed is counted. One that is still pending, or was published
    after the stream was read, is a transient problem.
    """
    previous = 0
    for event in stored.events if contents.epoch else ():
        sequence, row = contents.sequence_at(event.position), stored.outbox.get(event.position)
        subject = f"event {event.id}"
        if row and row.sequence and row.epoch != contents.epoch:
            text = f"outbox has epoch {row.epoch}, the stream has {contents.epoch}"
            yield Problem("stream", subject, text)
        if not sequence:
            if row and row.sequence == 0:
                yield Problem("stream", subject, "still pending in the outbox", transient=True)
            elif contents.is_archived(event, row.sequence if row and row.epoch == contents.epoch else 0):
                counts["archived messages"] += 1
            elif row and row.sequence > contents.last_sequence:
                yield Problem("stream", subject, "not in the stream yet", transient=True)
            else:
                outbox = f"outbox has message {row.sequence}" if row else "no outbox row"
                yield Problem("stream", subject, f"missing in the stream; {outbox}")
            continue
        contents.mark_compared(event.position)
        if not contents.matches(event):
            yield Problem("stream", subject, f"message {sequence} differs from PostgreSQL")
        if row and row.sequence not in (0, sequence) and row.epoch == contents.epoch:
            text = f"message {sequence} in the stream, message {row.sequence} in the outbox"
            yield Problem("stream", subject, text)
        if sequence < previous:
            yield Problem("stream", subject, f"message {sequence} precedes that of an earlier version")
        previous = sequence


async def check_unmatched(sources: Sources, standby: bool) -> AsyncIterator[Problem]:
    """Check the messages whose events were recorded after their streams were read, or do not exist.

    Args:
        sources: the stream, read and compared with all streams in PostgreSQL.
        standby: PostgreSQL may be behind the stream.
    """
    contents, messages = sources.stream, sources.stream.list_not_compared()
    while page := dict(islice(messages, PAGE_SIZE)):
        events = await sources.postgres.read_events_at(list(page))
        for position, sequence in page.items():
            event = events.get(position)
            if event is None and not standby:
                text = f"position {position} has no event in PostgreSQL"
                yield Problem("stream", f"message {sequence}", text)
            elif event is not None and not contents.matches(event):
                yield Problem("stream", f"event {event.id}", f"message {sequence} differs from PostgreSQL")
