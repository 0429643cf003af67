"""Persons as subjects of data: forgetting them, and exporting what is held on them."""

import asyncio
import getpass
import os
import sys
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import click

from operations.cli_output import echo, echo_json
from operations.cli_parts import read_settings
from operations.cli_types import Reason
from operations.commands import options
from operations.rendering.json_lines import format_object
from runtime.process.start_error import NotAsked, StartError

T = TypeVar("T")


@click.command("export-subject")
@click.argument("subject")
@options.reason
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A new file, which its owner alone can read; standard output without it.",
)
def export_subject(subject: str, reason: str, output: Path | None) -> None:
    """Write all that is held on SUBJECT as JSON: events in clear, views, sagas, and the record of calls.

    It needs the URL of the database's owner, and the key ring. It is on record.
    """
    from functools import partial

    import msgspec

    from command_server.kernel.context import Context
    from operations.subjects.export import SubjectExport
    from projector.projection import Projection
    from runtime.process.contexts import choose_contexts, load_parts
    from runtime.process.key_file import read_ring

    settings = read_settings()
    manifests = choose_contexts(settings)
    types = {
        context.name: context.events for context in load_parts(manifests, "commands", "CONTEXT", Context)
    }
    views = [each.view for each in load_parts(manifests, "projections", "PROJECTIONS", Projection)]
    export = SubjectExport(
        settings.database_url, settings.redis_url, partial(read_ring, settings.keys), types, views
    )
    held = asyncio.run(_ask(export.run(subject, reason, getpass.getuser())))
    document = msgspec.json.format(msgspec.json.encode(held)).decode()
    if output is None:
        echo(document)
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - of a descriptor
            file.write(document + "\n")
    except OSError as error:
        raise StartError(f"{output}: cannot write: {error}") from error
    echo(f"{output}: {len(held['events']):,} events, {len(held['views']):,} views")


async def _ask(work: Awaitable[T]) -> T:
    """Return a result of the stores.

    Raises:
        NotAsked: one of them cannot be reached, or refuses.
    """
    from command_server.kernel.ports import StoreConflict, StoreFailed, StoreUnavailable
    from operations.server_errors import UNREACHABLE, summarize

    try:
        return await work
    except (*UNREACHABLE, StoreConflict, StoreFailed, StoreUnavailable) as error:
        raise NotAsked(f"the stores cannot be read or written: {summarize(error)}") from error


@click.command()
@click.argument("subject", required=False)
@click.option("--reason", type=Reason(), help="Why; it is recorded.")
@click.option("--list", "as_list", is_flag=True, help="List who was forgotten, one JSON object in a line.")
@click.option(
    "--from",
    "file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Forget all of such a list, after PostgreSQL was restored from a backup.",
)
@options.as_json
def forget(subject: str | None, reason: str | None, as_list: bool, file: Path | None, as_json: bool) -> None:
    """Destroy the key of SUBJECT, and have views folded again without their data.

    It needs the URL of the database's owner. What the key has sealed can be read by nobody from then on.
    Called again it goes on where it was.

    Exit code 1: events from before the first master key have data of the person in clear.
    """
    if (subject is not None) + as_list + (file is not None) != 1:
        raise click.UsageError("name a subject, or give one of --list and --from")
    if as_list:
        _list_receipts()
        return
    if subject is not None and reason is None:
        raise click.UsageError("Missing option '--reason'.")
    from operations.subjects.forgetting import MAX_USE

    wanted = [(subject, reason)] if subject is not None else _read_list(file)  # type: ignore[arg-type]
    # A list is for a database without command servers: none of them has a key in use.
    wait = MAX_USE if subject is not None else 0.0
    sys.exit(max([_forget(each, why or "", wait, as_json) for each, why in wanted], default=0))


def _list_receipts() -> None:
    from operations.subjects.forgetting import read_receipts

    for receipt in asyncio.run(_ask(read_receipts(read_settings().database_url))):
        entry = {
            "subject": receipt.subject,
            "forgotten": str(receipt.destroyed_at),
            "by": receipt.destroyed_by,
            "reason": receipt.reason,
        }
        echo_json(format_object(entry))


def _read_list(file: Path) -> list[tuple[str, str]]:
    import msgspec

    try:
        entries = [msgspec.json.decode(line) for line in file.read_bytes().splitlines() if line.strip()]
        return [(str(entry["subject"]), str(entry.get("reason") or "")) for entry in entries]
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError) as error:
        raise click.BadParameter(
            f"{file}: not a list of `diptych forget --list`", param_hint="--from"
        ) from error


def _forget(subject: str, reason: str, wait: float, as_json: bool) -> int:
    from command_server.kernel.context import Context
    from operations.subjects.forgetting import forget as forget_subject
    from runtime.process.contexts import choose_contexts, load_parts

    settings = read_settings()
    contexts = load_parts(choose_contexts(settings), "commands", "CONTEXT", Context)
    types = [descriptor.full_name for context in contexts for descriptor in context.events.descriptors]
    operator = getpass.getuser()
    forgetting = forget_subject(settings.database_url, types, subject, reason, operator, wait)
    done = asyncio.run(_ask(forgetting))
    found, receipt = done.streams, done.receipt
    if as_json:
        entry = {
            "subject": subject,
            "forgotten": None if receipt is None else str(receipt.destroyed_at),
            "streams": len(found.sealed),
            "events": found.events,
            "clear_streams": sorted(found.clear),
        }
        echo_json(format_object(entry))
    elif receipt is None:
        echo(f"{subject}: nothing is sealed of them")
    else:
        echo(
            f"{subject}: forgotten at {receipt.destroyed_at}; {found.events:,} events in "
            f"{len(found.sealed):,} streams can be read no more"
        )
    if not as_json:
        for name in sorted(found.clear):
            echo(f"{name}: has data in clear, from before the first master key, which stays")
    return 1 if found.clear else 0
