"""Dead letters as text."""

from collections.abc import Iterator, Sequence
from typing import Any

from operations.rendering.layout import BAD, Line, lay_out_items, lay_out_text
from operations.rendering.records import render_event_fields
from operations.rendering.values import format_count, format_timestamp, get_last_part


def render_letters(letters: Sequence[Any], width: int) -> list[Line]:
    """Return an entry for each dead letter."""
    return [line for each in letters for line in _render_letter(each, width)]


def _render_letter(letter: Any, width: int) -> Iterator[Line]:
    kind = letter.projection or f"saga {letter.saga}"
    yield from lay_out_items([kind, letter.id], width, indent=0)
    yield from lay_out_items(
        [f"version {letter.version} of {letter.stream}", *_list_times(letter)],
        width,
    )
    yield from lay_out_text(letter.error, width, BAD, indent=4)


def _list_times(letter: Any) -> Iterator[str]:
    yield f"since {format_timestamp(letter.since)}"
    if letter.attempts:
        yield format_count(letter.attempts, "attempt")
    if letter.HasField("next_attempt_time"):
        yield f"next {format_timestamp(letter.next_attempt_time)}"
    else:
        yield "waits for a retry"


def render_letter_details(details: Any, width: int) -> list[Line]:
    """Return a dead letter with its event."""
    letter = details.dead_letter
    lines = list(_render_letter(letter, width))
    if letter.place:
        lines += lay_out_text(f"raised at {letter.place}", width, indent=4)
    waiting = format_count(details.waiting_events, "later event")
    lines += lay_out_text(f"{waiting} of the stream wait behind it", width, indent=4)
    if not details.HasField("event"):
        return lines + lay_out_text("PostgreSQL has no such event", width, BAD, indent=4)
    event = details.event
    time = format_timestamp(event.record_time)
    lines += lay_out_text(f"{get_last_part(event.type)} was recorded at {time}", width, indent=4)
    lines += lay_out_items([f"by {event.actor}" if event.actor else "", f"position {event.position}"], width)
    return [*lines, *render_event_fields(event, width)]


def render_refused(letters: Sequence[Any], width: int) -> list[Line]:
    """Return a line for each dead letter that could not be retried, with the reason."""
    return [
        line
        for each in letters
        for line in lay_out_text(
            f"not tried again: {each.projection or each.saga} {each.id}: {each.error}", width, BAD
        )
    ]
