"""Instances of sagas as text."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from operations.rendering.layout import BAD, Line, Row, lay_out_items, lay_out_table, lay_out_text
from operations.rendering.values import format_count, format_timestamp


def render_sagas(sagas: Sequence[Any], width: int) -> list[Line]:
    """Return an entry for each instance, without its steps."""
    return [line for each in sagas for line in render_instance(each, width)]


def render_instance(saga: Any, width: int) -> Iterator[Line]:
    """Yield the lines with an instance's status, and the event or reply that it waits for."""
    colour = BAD if saga.blocked_reason or saga.unreadable else ""
    head = f"{saga.saga} {saga.id}: {saga.state} since {format_timestamp(saga.state_start_time)}"
    yield from lay_out_text(head, width, colour)
    if is_overdue(saga):
        yield from lay_out_text(f"overdue since {format_timestamp(saga.due_time)}", width, BAD, indent=4)
    if saga.blocked_reason:
        yield from lay_out_text(f"blocked: {saga.blocked_reason}", width, BAD, indent=4)
    elif saga.waiting_for:
        yield from lay_out_text(f"waits for {saga.waiting_for}", width, indent=4)


def is_overdue(saga: Any) -> bool:
    """Return whether an instance should have left its state, by the clock of this machine."""
    return bool(saga.HasField("due_time")) and saga.due_time.ToDatetime(UTC) < datetime.now(UTC)


def render_saga(saga: Any, width: int) -> list[Line]:
    """Return the status, positions, steps, timers and operators' actions of an instance."""
    lines = [*render_instance(saga, width)]
    lines += lay_out_items([f"began {format_timestamp(saga.begin_time)}", *_list_positions(saga)], width)
    if saga.omitted_step_count:
        lines.append(Line(f"    {format_count(saga.omitted_step_count, 'earlier step')} left out"))
    if saga.steps:
        lines += lay_out_table([_describe_step(step) for step in saga.steps], width)
    for timer in saga.timers:
        lines += lay_out_text(f"timer {timer.name} at {format_timestamp(timer.due_time)}", width)
    if saga.omitted_timer_count:
        lines.append(Line(f"    {format_count(saga.omitted_timer_count, 'later timer')} left out"))
    if saga.omitted_operator_action_count:
        omitted = format_count(saga.omitted_operator_action_count, "earlier action")
        lines.append(Line(f"    {omitted} left out"))
    for action in saga.operator_actions:
        text = f"{format_timestamp(action.time)}  {action.operator}: {action.action} {action.reason}"
        lines += lay_out_text(text.rstrip(), width)
    return lines


def _list_positions(saga: Any) -> Iterator[str]:
    for position in saga.streams:
        failed = ", failed on the next event" if position.failed else ""
        yield f"version {position.version} of {position.stream}{failed}"


def _describe_step(step: Any) -> Row:
    attempt = f" (attempt {step.attempt})" if step.attempt > 1 else ""
    if step.outcome:
        state = f"{step.outcome}, answered {format_timestamp(step.answer_time)}"
    else:
        error = f": {step.error}" if step.error else " yet"
        state = f"sent {format_count(step.tries, 'time')}, no answer{error}"
    cells = format_timestamp(step.decide_time), f"{step.name}{attempt}", state
    return Row(cells, BAD if step.denied else "")
