"""The audit: checkpoints over all that is recorded, and whether it is still what was recorded."""

import asyncio
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from operations.cli_output import echo, echo_json
from operations.cli_parts import CommandGroup, read_settings
from operations.commands import options
from operations.rendering.json_lines import format_object

CLEAN, DIFFERENT = 0, 1


@click.group(cls=CommandGroup)
def audit() -> None:
    """Verify the records: events, requests, audit, refused calls and operators' acts."""


public_keys = click.option(
    "--public-keys",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Public keys, as `diptych keys public` prints them; by default those of the key ring.",
)


@audit.command()
@click.option(
    "--checkpoint",
    "kept",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    metavar="FILE",
    help="A checkpoint that was kept elsewhere: the past before it must be the same; may be repeated.",
)
@public_keys
@click.option(
    "--export",
    "exported",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Verify this file of `diptych audit export` instead, without any server.",
)
@click.option("--findings", default=20, show_default=True, help="How many findings of each record to show.")
@options.as_json
def verify(
    kept: tuple[Path, ...], public_keys: Path | None, exported: Path | None, findings: int, as_json: bool
) -> None:
    """Compare all that is recorded with its chains and checkpoints, and name each row that differs.

    Exit code 0: no difference. 1: differences. 2: the comparison was not possible.
    """
    from operations.audit.export_file import verify_file
    from operations.audit.signatures import read_checkpoint
    from operations.audit.verification import verify
    from operations.progress import Progress

    keys, checkpoints = _read_keys(public_keys), [read_checkpoint(path) for path in kept]
    if exported is not None:
        report = verify_file(exported, keys, checkpoints, findings)
    else:
        progress, url = Progress("rows", partial(echo, err=True)), read_settings().database_url
        report = asyncio.run(verify(url, keys, checkpoints, max_findings=findings, observe=progress.report))
    if as_json:
        echo_json(format_object(report.to_facts()))
    else:
        echo(report.to_text())
    sys.exit(CLEAN if report.is_clean else DIFFERENT)


@audit.command()
@click.argument("number", type=click.IntRange(min=1), required=False)
def checkpoint(number: int | None) -> None:
    """Print a checkpoint, by default the last one, to be kept elsewhere."""
    from operations.audit.checkpoints import read_text

    echo(asyncio.run(read_text(read_settings().database_url, number)).rstrip("\n"))


@audit.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="A new file of JSON lines.",
)
@click.option(
    "--after",
    type=click.IntRange(min=0),
    metavar="CHECKPOINT",
    help="Begin after this checkpoint; by default after the last exported one.",
)
@options.as_json
def export(output: Path, after: int | None, as_json: bool) -> None:
    """Write all sealed records since the last export into a file, which `verify --export` verifies.

    The export is recorded: housekeeping removes only what is exported.
    """
    from operations.audit.export import export
    from operations.progress import Progress

    progress = Progress("checkpoints", partial(echo, err=True))
    url = read_settings().database_url
    done = asyncio.run(export(url, output, after=after, observe=progress.report))
    if as_json:
        facts = {"first_checkpoint": done.first_checkpoint, "last_checkpoint": done.last_checkpoint}
        echo_json(format_object({**facts, "rows": done.rows, "recorded": done.is_recorded}))
        return
    echo(f"{done.rows:,} rows of the checkpoints {done.first_checkpoint} to {done.last_checkpoint}")
    if not done.is_recorded:
        echo("not recorded as exported: earlier checkpoints are not exported", err=True)


@audit.command()
@click.option("--caller", default="", help="Only what this caller did: the subject of its token.")
@click.option("--person", default="", help="Only what was done on behalf of this person.")
@click.option("--stream", default="", help="Only what is about this stream, <context>.<aggregate>.<id>.")
@options.since
@options.until
@options.limit
@options.as_json
def search(
    caller: str,
    person: str,
    stream: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List who did, tried or looked at what, the latest first.

    Commands, refused calls, recorded reads and operators' acts.
    """
    from operations.audit.search import search

    found = search(
        read_settings().database_url,
        caller=caller,
        person=person,
        stream=stream,
        since=since,
        until=until,
        limit=limit,
    )
    for row in asyncio.run(found):
        time = row["recorded_at"].astimezone(UTC).isoformat().replace("+00:00", "Z")
        if as_json:
            echo_json(format_object({**row, "recorded_at": time}))
        else:
            who = row["caller"] or "nobody"
            who += f" for {row['on_behalf_of']}" if row["on_behalf_of"] else ""
            echo(f"{time}  {row['record']}  {who}  {row['what']}  {row['about']}  {row['outcome']}")


@audit.command()
@click.argument("event")
@click.option(
    "--checkpoint", type=click.IntRange(min=0), default=0, help="End in this one, for instance a kept one."
)
def proof(event: str, checkpoint: int) -> None:
    """Print what proves that EVENT (STREAM@VERSION) is on record, as JSON; `diptych_client` checks it."""
    from diptych.operations.v1.operations_service_pb2 import GetEventProofRequest
    from google.protobuf.json_format import MessageToJson

    from operations.client.api import open_api

    stream, _, version = event.rpartition("@")
    if not stream or not version.isdecimal():
        raise click.BadParameter("not STREAM@VERSION", param_hint="EVENT")
    request = GetEventProofRequest(stream=stream, version=int(version), checkpoint=checkpoint)
    with open_api() as api:
        echo_json(MessageToJson(api.call(api.stub.GetEventProof, request).proof, indent=None))


def _read_keys(path: Path | None) -> dict[str, bytes]:
    from operations.audit.signatures import read_public_keys
    from operations.keys import read_public_keys as read_ring

    return read_public_keys(path) if path else read_ring(Path(read_settings().keys))
