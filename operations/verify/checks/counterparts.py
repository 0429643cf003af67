"""Streams that name each other: each counterpart of a stream has the stream among its own.

Rules keep such pairs by writing both streams in one transaction. The streams here were read before their
counterparts were, so one that changes in between is checked again.
"""

from collections.abc import Mapping, Sequence

from contracts import streams
from operations.verify.checks import stored_streams
from operations.verify.checks.stored_streams import FOLD_ERRORS, StreamEvents
from operations.verify.model import Aggregate, Event, Problem
from operations.verify.sources import PostgresReader


async def check(
    postgres: PostgresReader, aggregates: Mapping[str, Aggregate], events: Mapping[str, StreamEvents]
) -> dict[str, list[Problem]]:
    """Return the problems of streams with their counterparts, by stream; streams without any are omitted.

    Args:
        postgres: the events of the counterparts.
        aggregates: the folds, by stream type.
        events: of the streams to check. Those that cannot be folded are skipped; other checks report them.
    """
    named = {name: _list(aggregates, name, each.events) for name, each in events.items() if each.complete}
    own = {other for others in named.values() for other in others}
    found: dict[str, Sequence[str]] = {}
    for other, stored in (await postgres.read_streams(sorted(own))).items() if own else ():
        aggregate = aggregates.get(streams.stream_type(other))
        parsed = stored_streams.parse_events(stored, aggregate.events)[0] if aggregate else ()
        found[other] = _list(aggregates, other, parsed)
    problems: dict[str, list[Problem]] = {}
    for name, others in named.items():
        if one_sided := [other for other in others if name not in found.get(other, ())]:
            problems[name] = [
                Problem("events", f"stream {name}", f"its counterpart {other} does not name it")
                for other in one_sided
            ]
    return problems


def _list(aggregates: Mapping[str, Aggregate], name: str, events: Sequence[Event]) -> Sequence[str]:
    aggregate = aggregates.get(streams.stream_type(name))
    try:
        return list(aggregate.list_counterparts(events)) if aggregate and events else ()
    except FOLD_ERRORS:
        return ()
