"""The keys of the key ring."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

import click

from contracts.key_ring import ALGORITHMS, SEALING, SIGNATURE, KeyState, Purpose, list_algorithms
from operations import keys as key_ring
from operations.cli_output import echo, echo_json
from operations.cli_parts import read_settings
from operations.cli_types import Duration
from operations.commands import options
from operations.rendering.json_lines import format_object


@click.group()
def keys() -> None:
    """List, check and rotate the keys of the key ring (DIPTYCH_KEYS)."""


@keys.command("list")
@options.as_json
def list_keys(as_json: bool) -> None:
    """List the keys, without their secrets."""
    path = Path(read_settings().keys)
    if as_json:
        for entry in key_ring.read_public_fields(path):
            echo_json(format_object(entry))
    else:
        echo(key_ring.list_keys(path))


@keys.command("public")
def list_public_keys() -> None:
    """List the public keys with which others verify checkpoints of the audit."""
    echo(key_ring.list_public_keys(Path(read_settings().keys)))


@keys.command("check")
@options.as_json
def check_keys(as_json: bool) -> None:
    """Check the file as the processes do. Exit code 2: they refuse it."""
    path = Path(read_settings().keys)
    *warnings, verdict = key_ring.check(path)
    if as_json:
        echo_json(format_object({"file": str(path), "warnings": warnings}))
    else:
        echo("\n".join([*(f"warning: {warning}" for warning in warnings), verdict]))


@keys.command("new")
@click.option(
    "--purpose",
    type=click.Choice([purpose.value for purpose in Purpose]),
    required=True,
    help="What the key signs or seals.",
)
@click.option(
    "--algorithm",
    type=click.Choice([*ALGORITHMS, SIGNATURE, SEALING]),
    help=f"By default {next(iter(ALGORITHMS))}; {SIGNATURE} for the purpose seal, {SEALING} for personal.",
)
@click.option(
    "--after",
    type=Duration(),
    default="60s",
    show_default=True,
    help="How long until it signs; every process has to read the file within it.",
)
@options.as_json
def new_key(purpose: str, algorithm: str | None, after: timedelta, as_json: bool) -> None:
    """Add a key with a random secret, and print its id. The file is created if need be."""
    algorithms = list_algorithms(purpose)
    if algorithm is not None and algorithm not in algorithms:
        raise click.BadParameter(f"of {purpose} is {' or '.join(algorithms)}", param_hint="--algorithm")
    key_id = key_ring.create(Path(read_settings().keys), purpose, algorithm, after)
    echo(format_object({"id": key_id}) if as_json else key_id)


@keys.command("rewrap")
@options.as_json
def rewrap_keys(as_json: bool) -> None:
    """Encrypt the keys of persons with the master key that is in use, so that an older one can be removed.

    It needs the URL of the database's owner. Exit code 1: some keys are damaged.
    """
    from functools import partial

    from contracts.subject_keys import MasterKeyMissing
    from operations.server_errors import UNREACHABLE, summarize
    from operations.subjects.rewrapping import rewrap
    from runtime.process.key_file import read_ring
    from runtime.process.start_error import NotAsked, StartError

    settings = read_settings()
    try:
        master, done, damaged = asyncio.run(rewrap(settings.database_url, partial(read_ring, settings.keys)))
    except MasterKeyMissing as error:
        raise StartError(f"DIPTYCH_KEYS={settings.keys}: {error}") from error
    except UNREACHABLE as error:
        raise NotAsked(f"DIPTYCH_DATABASE_URL: {summarize(error)}") from error
    if as_json:
        echo_json(format_object({"master_key": master, "rewrapped": done, "damaged": damaged}))
    else:
        echo(f"{done:,} keys of persons are wrapped with {master} now; {damaged:,} are damaged")
    sys.exit(1 if damaged else 0)


@keys.command("set")
@click.argument("key_id")
@click.argument("state", type=click.Choice([state.value for state in KeyState]))
@options.as_json
def set_key_state(key_id: str, state: str, as_json: bool) -> None:
    """Change the state of KEY_ID: active, verify-only (signs no more) or revoked (its tokens are refused)."""
    key_ring.set_state(Path(read_settings().keys), key_id, state)
    echo(format_object({"id": key_id, "state": state}) if as_json else f"{key_id} is {state}")
