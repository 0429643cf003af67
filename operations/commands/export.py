"""`diptych events export`: the events on record as a file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from operations.cli_output import echo
from operations.cli_types import Number
from operations.client.api import open_api
from operations.commands import options

if TYPE_CHECKING:
    from operations.export.writers import Writer

STDOUT = "-"


@click.command()
@click.option("--from-position", type=Number(min=1), default=1, help="Begin with this position; default: 1.")
@click.option("--stream", default="", help="Only those of this stream, for instance ordering.order.o-1.")
@click.option("--type", "type_", default="", help="Only those of this type, for instance OrderPlaced.")
@click.option(
    "--format", "format_", type=click.Choice(["jsonl", "parquet"]), default="jsonl", show_default=True
)
@options.content
@click.option("--output", required=True, metavar="FILE", help="The file to create; - for stdout (jsonl).")
def export(from_position: int, stream: str, type_: str, format_: str, content: Any, output: str) -> None:
    """Write the events on record to a file, in order of their positions, up to the last one at the beginning.

    If it ends early, the file has all events up to a position that is printed: continue after it with
    --from-position, in another file.
    """
    from diptych.operations.v1.operations_service_pb2 import ExportEventsRequest

    from operations.export.command import Export
    from operations.export.writers import WRITERS

    request = ExportEventsRequest(
        after_position=from_position - 1, stream=stream, type=type_, content=content
    )
    with open_api() as api:
        writer = WRITERS[format_](output)
        run = Export(api, writer, lambda line: echo(line, err=True))
        try:
            run.run(request)
        except SystemExit:  # the reader of stdout has gone
            raise
        except BaseException:
            _end_early(writer, output, run.position, from_position)
            raise
        writer.close()


def _end_early(writer: "Writer", output: str, position: int, first: int) -> None:
    """Complete the file and print how to continue; remove a file that has nothing."""
    writer.close()
    file = None if output == STDOUT else Path(output)
    if position < first:
        if file is not None:
            file.unlink(missing_ok=True)
    elif file is None or file.exists():
        text = f"the file has the events up to position {position:,}; continue with "
        echo(f"{text}--from-position {position + 1} and another --output", err=True)
