"""Lists of the operations server, printed page by page."""

from collections.abc import Callable, Sequence
from typing import Any

from operations.cli_output import echo, echo_json, echo_lines, get_width
from operations.client.api import list_entries, open_api
from operations.rendering.json_lines import format_message
from operations.rendering.layout import Line

Render = Callable[[Sequence[Any], int], Sequence[Line]]


def show_list(method: str, request: Any, limit: int, as_json: bool, render: Render, nothing: str) -> None:
    """Print a list, as JSON lines or as text.

    Args:
        method: of the operations server, for instance `ListRequests`.
        request: for its first page.
        limit: the maximum number of entries; 0 for all.
        as_json: whether to print an object for each entry.
        render: returns the lines of some entries for a width.
        nothing: the text for an empty list.
    """
    count, has_more = 0, False
    with open_api() as api:
        for page in api.list_pages(getattr(api.stub, method), request, limit):
            entries = list_entries(page)
            count, has_more = count + len(entries), bool(page.next_page_token)
            for entry in entries if as_json else ():
                echo_json(format_message(entry))
            if entries and not as_json:
                echo_lines(render(entries, get_width()))
    if not count and not as_json:
        echo(nothing)
    if has_more:
        echo(f"there are more: --limit {limit} ends the list; --limit 0 is for all", err=True)
