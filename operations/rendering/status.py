"""The page of `diptych status`: its first line is OK, or the gravest finding."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from operations.rendering.layout import BAD, Line, Row, lay_out_table, lay_out_text
from operations.rendering.projections import describe_projection, is_fine
from operations.rendering.values import format_count, format_seconds, format_timestamp, to_seconds

SUCCESS_RATE = "command success rate"
"""The one of the five figures that has to be high."""


def render_status(status: Any, width: int) -> list[Line]:
    """Return the page: OK or the findings, then a row for each part of the system."""
    findings = list(status.findings)
    if not status.healthy:
        findings = findings or ["not healthy"]
    verdict = [line for finding in findings for line in lay_out_text(finding, width, BAD)]
    sections = (_list_processes, _list_instances, _list_stores, _list_projections, _list_sagas, _list_figures)
    rows = chain.from_iterable(section(status) for section in sections)
    return [*(verdict or [Line("OK", "green")]), Line(""), *lay_out_table(list(rows), width)]


def _list_processes(status: Any) -> Iterator[Row]:
    for process in status.processes:
        state = f"{process.health} at {process.address}" + (f": {process.reason}" if process.reason else "")
        yield Row((process.name, state), "" if process.health == "SERVING" else BAD)


def _list_instances(status: Any) -> Iterator[Row]:
    for each in status.instances:
        state = f"{len(each.living)} living"
        if each.living:
            state += f", started {_describe_starts(each.living)}"
        if each.gone:
            last = format_timestamp(each.gone[0].report_time)
            reports = "reports" if len(each.gone) == 1 else "report"
            state += f"; {len(each.gone)} no longer {reports}, the last one since {last}"
        colour = "" if not each.gone else "yellow" if each.living else BAD
        yield Row((f"{each.kind} instances", state), colour)


def _describe_starts(living: Any) -> str:
    first, last = (format_timestamp(living[at].start_time) for at in (0, -1))
    return first if first == last else f"{first} to {last}"


def _list_stores(status: Any) -> Iterator[Row]:
    for store in status.stores:
        yield Row((store.name, store.error or store.description), BAD if store.error else "")
    outbox = status.outbox
    yield Row(("outbox", _describe_outbox(outbox)), BAD if outbox.error or not outbox.leader else "")


def _describe_outbox(outbox: Any) -> str:
    if outbox.error:
        return str(outbox.error)
    pending = "nothing pending"
    if outbox.pending_events:
        age = f", the oldest for {format_seconds(to_seconds(outbox.oldest_age))}"
        pending = f"{format_count(outbox.pending_events, 'event')} pending" + age
    return f"{pending}, {outbox.leader} leads" if outbox.leader else f"{pending}, no relay leads"


def _list_projections(status: Any) -> Iterator[Row]:
    for each in status.projections:
        yield Row((each.name, describe_projection(each)), "" if is_fine(each) else BAD)


def _list_sagas(status: Any) -> Iterator[Row]:
    for counts in status.sagas:
        needy = {name: getattr(counts, name) for name in ("overdue", "blocked", "denied", "unreadable")}
        state = ", ".join(f"{number:,} {name}" for name, number in {"open": counts.open, **needy}.items())
        yield Row((counts.saga, state), BAD if any(needy.values()) else "")
    for target in status.silent_targets:
        silent = (status.read_time.ToNanoseconds() - target.silent_since.ToNanoseconds()) / 1e9
        waiting = format_count(target.waiting_steps, "step")
        state = f"does not answer for {format_seconds(max(0.0, silent))}, waiting: {waiting}: {target.error}"
        yield Row((target.service, state), BAD)


def _list_figures(status: Any) -> Iterator[Row]:
    for figure in status.figures:
        side = "at least" if figure.name == SUCCESS_RATE else "at most"
        state = f"{_describe_value(figure)} ({side} {figure.threshold:,.6g} {figure.unit})"
        if figure.HasField("last_bad_time"):
            state += f", the last bad measurement at {format_timestamp(figure.last_bad_time)}"
        yield Row((figure.name, state), "" if figure.good else BAD)


def _describe_value(figure: Any) -> str:
    if figure.error:
        return f"unknown: {figure.error}"
    return f"{figure.value:,.6g} {figure.unit}" if figure.HasField("value") else "nothing to measure"
