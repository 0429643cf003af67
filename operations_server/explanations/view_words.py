"""Sentences about views. Pure."""

from datetime import datetime
from shlex import quote

from diptych.operations.v1.explanation_pb2 import Explanation

from operations_server.explanations.chain import Entry
from operations_server.explanations.views import ViewState
from operations_server.names import format_time


def describe_view(state: ViewState, aggregate_id: str, latest: int) -> str:
    """Return the version of a view, or the error at which it is parked and the command to retry it.

    Args:
        state: of the view.
        aggregate_id: its id.
        latest: the version of the stream.
    """
    name = state.projection
    if state.parked_error:
        at = f" at version {state.parked_version}" if state.parked_version else ""
        since = f" since {format_time(state.parked_since)}" if state.parked_since else ""
        retry = f"diptych projections retry {name} {quote(aggregate_id)} --reason …"
        return f"{name} is parked{at}{since}: {state.parked_error}; to retry it: {retry}"
    building = (
        "" if state.ready else "; the projection is being built, and its queries answer VIEW_REBUILDING"
    )
    if state.archived:
        return f"{name} is archived at version {state.version}{building}"
    if not state.version:
        return f"{name} has no view yet{building}"
    if state.version < latest:
        return f"{name} has version {state.version}, {latest - state.version} behind{building}"
    return f"{name} has version {state.version}, the latest{building}"


def create_view_entry(
    state: ViewState, aggregate_id: str, latest: int, *, now: datetime, depth: int
) -> Entry:
    text = describe_view(state, aggregate_id, latest)
    time = state.parked_since if state.parked_error and state.parked_since else now
    return Entry(time, Explanation.KIND_VIEW, text, depth=depth)
