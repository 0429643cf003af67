"""Options that several commands have."""

from typing import Any

import click

from operations.cli_types import AsOfType, Moment, Reason


def _parse_content(_context: click.Context, _parameter: click.Parameter, name: str) -> Any:
    from diptych.operations.v1.dead_letters_pb2 import EventContent

    return EventContent.Value(f"EVENT_CONTENT_{name.upper()}")


content = click.option(
    "--content",
    type=click.Choice(["none", "masked", "full"]),
    callback=_parse_content,
    default="masked",
    show_default=True,
    help="The fields: none, personal ones masked, or all, which needs the scope operations.personal.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON: one object in a line for each.")
as_of = click.option("--as-of", type=AsOfType(), help="As of this version, or this time; default: now.")
since = click.option(
    "--since", type=Moment(), help="Only from this time on, for instance 1h for an hour ago."
)
until = click.option("--until", type=Moment(), help="Only before this time.")
reason = click.option("--reason", required=True, type=Reason(), help="Why; it is recorded.")
rate = click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second, at most; default: no limit."
)
limit = click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=50,
    show_default=True,
    help="The maximum number of entries; 0 for all.",
)
