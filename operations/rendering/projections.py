"""Projections and their lags, as text."""

from collections.abc import Iterator, Sequence
from typing import Any

from operations.rendering.layout import BAD, Line, Row, lay_out_table, lay_out_text
from operations.rendering.values import (
    format_count,
    format_seconds,
    format_share,
    format_timestamp,
    to_seconds,
)


def is_fine(projection: Any) -> bool:
    """Return whether a projection can be read and queried, and no aggregate waits in it."""
    return not projection.error and projection.ready and not projection.parked_aggregates


def describe_projection(projection: Any) -> str:
    """Return the state of a projection in one line."""
    if projection.error:
        return str(projection.error)
    facts = ["ready" if projection.ready else "not ready: queries answer VIEW_REBUILDING"]
    if projection.build_progress < 1:
        facts.append(f"{format_share(projection.build_progress)} built")
    if projection.ready or projection.events_behind:
        facts.append(describe_lag(projection))
    if projection.parked_aggregates:
        facts.append(f"{projection.parked_aggregates:,} parked")
    if projection.archived_aggregates:
        facts.append(f"{projection.archived_aggregates:,} archived")
    if projection.code_changed:
        facts.append("its code has changed since it was built")
    return ", ".join(facts)


def describe_lag(part: Any) -> str:
    """Return the events that a projection or a partition lacks, and the age of the oldest, for people."""
    if age := get_age(part):
        return f"{format_count(part.events_behind, 'event')} behind, the oldest for {format_seconds(age)}"
    return f"{format_count(part.events_behind, 'event')} behind" if part.events_behind else "up to date"


def get_age(part: Any) -> float:
    """Return the age in seconds of the oldest event that is not applied; 0 if all are."""
    return to_seconds(part.oldest_unapplied_age)


def render_projections(projections: Sequence[Any], width: int) -> list[Line]:
    """Return a row for each projection, with the projectors that hold its partitions."""
    rows = []
    for each in projections:
        holders = sorted({partition.holder or "nobody" for partition in each.partitions})
        held = f"; held by {', '.join(holders)}" if holders else ""
        row = Row((each.name, describe_projection(each) + held), "" if is_fine(each) else BAD)
        rows.append(row)
    return lay_out_table(rows, width) if rows else [Line("no projections")]


def render_generations(generations: Sequence[Any], width: int) -> list[Line]:
    """Return a row for each generation of a projection."""
    return lay_out_table([Row(("  " + each.name, _describe_generation(each))) for each in generations], width)


def _describe_generation(generation: Any) -> str:
    facts = ["serves" if generation.serves else "ready" if generation.ready else "is being built"]
    if not generation.ready:
        facts.append(f"{format_share(generation.build_progress)} built")
    if generation.HasField("begin_time"):
        facts.append(f"begun {format_timestamp(generation.begin_time)}")
    if generation.HasField("served_until_time"):
        facts.append(f"served until {format_timestamp(generation.served_until_time)}")
    if generation.rate:
        facts.append(f"at most {generation.rate:,g} events a second")
    if generation.pause:
        facts.append(f"pauses: {generation.pause}")
    if generation.parked_aggregates:
        facts.append(f"{generation.parked_aggregates:,} parked")
    if generation.code_changed:
        facts.append("its code has changed since it was built")
    return ", ".join(facts)


def render_comparison(comparison: Any, width: int) -> list[Line]:
    """Return the numbers of differences by field, and examples."""
    names = f"generations {comparison.serving_generation} and {comparison.generation}"
    views = format_count(comparison.compared_views, "view")
    if not comparison.differing_views:
        return [Line(f"{comparison.projection}: no differences between {names} in {views}")]
    differing = f"{comparison.differing_views:,} of {views} differ between {names}"
    lines = lay_out_text(f"{comparison.projection}: {differing}", width, BAD)
    for difference in comparison.differences:
        lines += lay_out_text(
            f"{difference.field}: {format_count(difference.count, 'view')}", width, indent=2
        )
        for each in difference.examples:
            change = f": {each.serving_value} -> {each.value}" if each.serving_value or each.value else ""
            lines += lay_out_text(f"{each.id}{change}", width, indent=4)
    return lines


def render_lag(projections: Sequence[Any], alert: float | None, by_partition: bool, width: int) -> list[Line]:
    """Return a row for each projection, and for each of its partitions if asked for.

    Args:
        projections: all of them.
        alert: the age in seconds from which on a row is coloured; None for none.
        by_partition: whether to show the partitions.
        width: of a line.
    """
    rows = [row for each in projections for row in _list_lags(each, alert, by_partition)]
    return lay_out_table(rows, width) if rows else [Line("no projections")]


def _list_lags(projection: Any, alert: float | None, by_partition: bool) -> Iterator[Row]:
    is_bad = is_above(projection, alert)
    yield Row((projection.name, describe_projection(projection)), BAD if is_bad else "")
    for partition in projection.partitions if by_partition else ():
        held = f"held by {partition.holder}" if partition.holder else "held by nobody"
        cells = f"  partition {partition.number}", f"{describe_lag(partition)}; {held}"
        yield Row(cells, BAD if alert is not None and get_age(partition) > alert else "")


def is_above(projection: Any, alert: float | None) -> bool:
    """Return whether a projection is further behind than the alert, is not ready, or cannot be read.

    The age of its oldest event is that of all its partitions. It has none while it is being built.
    """
    return bool(projection.error) or (
        alert is not None and (not projection.ready or get_age(projection) > alert)
    )
