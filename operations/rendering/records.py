"""Requests, refused calls, events and states as text."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from operations.rendering.layout import BAD, REJECTED, Line, lay_out_items, lay_out_text
from operations.rendering.values import (
    format_count,
    format_fields,
    format_seconds,
    format_timestamp,
    get_last_part,
    to_fields,
    to_seconds,
)

ACCEPTED = "ACCEPTED"
STATE = "state"


def render_requests(requests: Sequence[Any], width: int) -> list[Line]:
    """Return an entry for each answered command."""
    return [line for each in requests for line in _render_request(each, width)]


def _render_request(request: Any, width: int) -> Iterator[Line]:
    colour = "" if request.outcome == ACCEPTED else REJECTED
    head = f"{format_timestamp(request.record_time)}  {request.outcome}  {get_last_part(request.command)}"
    yield from lay_out_text(f"{head} by {_name_caller(request.caller, request)}", width, colour)
    ids = ("correlation", request.correlation_id), ("causation", request.causation_id)
    yield from lay_out_items(
        [
            request.stream,
            f"request {request.request_id}",
            f"in {format_seconds(to_seconds(request.duration))}",
            *(f"{name} {value}" for name, value in (*ids, ("trace", request.trace_id)) if value),
        ],
        width,
    )


def _name_caller(caller: str, record: Any) -> str:
    return f"{caller} for {record.on_behalf_of}" if record.on_behalf_of else caller


def render_refused_calls(calls: Sequence[Any], width: int) -> list[Line]:
    """Return an entry for each group of equal calls."""
    return [line for each in calls for line in _render_refused_calls(each, width)]


def _render_refused_calls(calls: Any, width: int) -> Iterator[Line]:
    cause = f" ({calls.cause})" if calls.cause else ""
    head = f"{format_count(calls.calls, 'call')}  {calls.reason}{cause}"
    yield from lay_out_text(f"{head}  last {format_timestamp(calls.last_time)}", width)
    caller = f"caller {calls.caller}" if calls.caller else "no caller"
    trace = f"trace {calls.trace_id}" if calls.trace_id else ""
    yield from lay_out_items([calls.method, caller, f"from {calls.peer}", trace], width)
    details = dict(calls.details)
    request = [f"request {details.pop('request_id')}"] if "request_id" in details else []
    items = [*request, *(f"{name}: {text}" for name, text in sorted(details.items()))]
    if items:
        yield from lay_out_items(items, width)


def render_events(events: Sequence[Any], width: int) -> list[Line]:
    """Return an entry for each event."""
    return [line for each in events for line in _render_event(each, width)]


def _render_event(event: Any, width: int) -> Iterator[Line]:
    time = format_timestamp(event.record_time)
    yield from lay_out_text(f"{time}  {get_last_part(event.type)}  {event.id}", width)
    command = f"by {_name_caller(event.actor, event)}" + (
        f" ({get_last_part(event.command)})" if event.command else ""
    )
    request = f"request {event.request_id}" if event.request_id else ""
    yield from lay_out_items([command, f"position {event.position}", request], width)
    if event.HasField("time_set_aside"):
        aside = format_timestamp(event.time_set_aside)
        note = f"the previous event's time was wrong and is set aside: {aside}"
        yield from lay_out_text(note, width, "yellow", indent=4)
    yield from render_event_fields(event, width)


def render_event_fields(event: Any, width: int) -> Sequence[Line]:
    """Return the fields of an event, or why it cannot be decoded; nothing if they were not requested."""
    if not event.error and not event.HasField("data"):
        return []
    text = f"cannot be decoded: {event.error}" if event.error else format_fields(event.data)
    return lay_out_text(text, width, BAD if event.error else "", indent=4)


def render_state(stream: str, response: Any, width: int) -> list[Line]:
    """Return the state of an aggregate and its views, each as JSON over several lines."""
    time = format_timestamp(response.record_time)
    lines = lay_out_text(f"{stream} at version {response.version}, recorded {time}", width)
    errors = dict(response.view_errors) | ({STATE: response.state_error} if response.state_error else {})
    parts = dict(response.views) | ({STATE: response.state} if response.HasField("state") else {})
    for name in sorted({*parts, *errors}, key=lambda name: (name != STATE, name)):
        lines += [Line(""), *lay_out_text(name, width)]
        if name in errors:
            lines += lay_out_text(f"not known: {errors[name]}", width, BAD, indent=2)
        else:
            lines += _lay_out_object(parts[name], width)
    return lines


def _lay_out_object(data: Any, width: int) -> Iterator[Line]:
    for line in json.dumps(to_fields(data), ensure_ascii=False, indent=2).split("\n"):
        depth = len(line) - len(line.lstrip())
        yield from lay_out_text(line.lstrip(), width, indent=2 + min(depth, width // 2))


def render_explanation(explanation: Any, width: int) -> list[Line]:
    """Return the entries in order; dots mark the effects of others."""
    lines = [
        *lay_out_text(explanation.subject, width),
        *lay_out_text(explanation.summary, width),
        Line(""),
    ]
    if explanation.omitted_entry_count:
        omitted = format_count(explanation.omitted_entry_count, "entry", "entries")
        lines.append(Line(f"{omitted} left out"))
    return lines + [line for entry in explanation.entries for line in _render_entry(entry, width)]


def _render_entry(entry: Any, width: int) -> list[Line]:
    kind = type(entry).DESCRIPTOR.fields_by_name["kind"].enum_type.values_by_number.get(entry.kind)
    is_no = kind is not None and kind.name in ("KIND_REJECTED", "KIND_REFUSED")
    reference = f" [{entry.reference}]" if entry.reference and entry.reference not in entry.text else ""
    indent = "· " * min(entry.depth, 8)
    text = f"{format_timestamp(entry.time)}  {indent}{entry.text}{reference}"
    return lay_out_text(text, width, REJECTED if is_no else "", hanging=4)
