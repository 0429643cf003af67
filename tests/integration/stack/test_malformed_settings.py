"""A malformed setting is one line and exit code 2, for every process and every command."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from devstack.tcp_ports import free_port
from operations import cli
from operations.processes import COMMAND_SERVER, KINDS, PROCESS_MANAGER, QUERY_SERVER, RELAY, ProcessKind
from tests.support.harness.keys import write_ring

SECRET = "pass-w0rd"
DATABASE_URL = f"postgresql://u:{SECRET}@127.0.0.1/diptych?sslmode=on"


async def run(module: str, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    """Run a module; return its exit code and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments), env=os.environ | environment, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(60):
            _, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    return process.returncode or 0, err.decode()


def assert_line(code: int, err: str, start: str) -> None:
    (line,) = err.splitlines()
    assert (code, start in line, SECRET in line) == (2, True, False), err


async def test_a_process_ends_with_one_line() -> None:
    code, err = await run("command_server", {"DIPTYCH_DATABASE_URL": DATABASE_URL})
    assert_line(code, err, "settings: DIPTYCH_DATABASE_URL: has an invalid value of the option sslmode")


def list_cases(folder: Path) -> Iterator[tuple[ProcessKind, str, str]]:
    """Yield malformed settings that are read by the processes themselves, and one of the others."""
    (folder / "list.json").write_text("[]")
    files = {COMMAND_SERVER: "DIPTYCH_JWKS", QUERY_SERVER: "DIPTYCH_JWKS", PROCESS_MANAGER: "DIPTYCH_KEYS"}
    for kind in KINDS:
        yield kind, kind.variable, "localhost:http"
        yield kind, "OTEL_EXPORTER_OTLP_TIMEOUT", "soon"
        if kind is not RELAY:
            yield kind, "DIPTYCH_CONTEXTS", "orderings"
        if kind in files:
            yield kind, files[kind], str(folder / "list.json")


@pytest.mark.long
async def test_every_process_names_the_malformed_setting(tmp_path: Path) -> None:
    valid = {"DIPTYCH_KEYS": str(write_ring(tmp_path / "keys.json")), "OTEL_METRICS_EXPORTER": "otlp"}
    valid |= {kind.variable: f"127.0.0.1:{free_port()}" for kind in KINDS}
    valid |= {"DIPTYCH_NATS_URL": "nats://127.0.0.1:1", "DIPTYCH_REDIS_URL": "redis://127.0.0.1:1"}
    two = asyncio.Semaphore(2)

    async def check(kind: ProcessKind, variable: str, value: str) -> None:
        async with two:
            end = await run(kind.module, {**valid, variable: value})
        assert_line(*end, "OTEL_" if variable.startswith("OTEL_") else variable)

    await asyncio.gather(*(check(*case) for case in list_cases(tmp_path)))
    not_utf_8 = {**valid, "DIPTYCH_TOKEN_ISSUER": os.fsdecode(b"a\xff")}
    assert_line(*await run("query_server", not_utf_8), "DIPTYCH_TOKEN_ISSUER: is not UTF-8")


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments", [("--workers", "0"), ("--workers", "two"), ("--contexts", ""), ("--unknown",)]
)
async def test_a_malformed_argument_is_one_line(arguments: tuple[str, ...]) -> None:
    assert_line(*await run("command_server", {}, *arguments), "python -m command_server: ")


def list_commands(group: click.Group, *path: str) -> list[tuple[str, ...]]:
    """Return the paths of all commands with their arguments, as far as they need any."""
    commands: list[tuple[str, ...]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if isinstance(command, click.Group):
            commands += list_commands(command, *path, name)
        else:
            commands.append((*path, name, *ARGUMENTS.get((*path, name), ())))
    return commands


ARGUMENTS = {
    ("export-subject",): ("ada", "--reason", "none"),
    ("forget",): ("ada", "--reason", "none"),
    ("projections", "rebuild"): ("ordering.order", "--reason", "none"),
    ("projections", "compare"): ("ordering.order",),
    ("projections", "switch"): ("ordering.order", "--reason", "none"),
    ("projections", "rollback"): ("ordering.order", "--reason", "none"),
    ("projections", "pause"): ("ordering.order", "--reason", "none"),
    ("projections", "resume"): ("ordering.order", "--reason", "none"),
    ("projections", "prune"): ("ordering.order", "2.1", "--reason", "none"),
    ("projections", "retry"): ("ordering.order", "--reason", "none"),
    ("sagas", "change-caller"): ("process-manager",),
    ("dead-letters", "show"): ("o-1",),
    ("dead-letters", "retry"): ("o-1", "--reason", "none"),
    ("dead-letters", "skip"): ("o-1", "--saga", "a.b", "--version", "1", "--reason", "none"),
    ("sagas", "show"): ("o-1",),
    ("sagas", "retry"): ("o-1", "--reason", "none"),
    ("sagas", "abort"): ("o-1", "--reason", "none"),
    ("state",): ("ordering.order.o-1",),
    ("explain",): ("o-1",),
    ("events", "export"): ("--output", "events.jsonl"),
    ("keys", "new"): ("--purpose", "page-tokens"),
    ("keys", "set"): ("k", "revoked"),
    ("audit", "export"): ("--output", "audit.jsonl"),
    ("audit", "proof"): ("a.b.c@1",),
    ("provision", "postgres"): ("--folder", "users"),
}
WITHOUT_SETTINGS = {
    *(("new",), ("generate",)),
    *(("provision", name) for name in ("certificates", "nats", "redis")),
}
CLIENTS = {
    *(("status",), ("lag",), ("projections",), ("dead-letters",), ("requests",)),
    *(("refused",), ("events",), ("state",), ("explain",), ("audit", "proof")),
    *(("sagas", name) for name in ("list", "show", "retry", "abort")),
}
"""The commands that ask the operations server, and need no address of a store."""
COMMANDS = [path for path in list_commands(cli.main) if path not in WITHOUT_SETTINGS]


def is_client(command: tuple[str, ...]) -> bool:
    return any(command[: len(path)] == path for path in CLIENTS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_ends_with_one_line(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DIPTYCH_DATABASE_URL", DATABASE_URL)
    monkeypatch.setenv("DIPTYCH_OPERATIONS_ADDRESS", "localhost:http")
    result = CliRunner().invoke(cli.main, command)
    err = capfd.readouterr().err + result.stderr
    database = "DIPTYCH_DATABASE_URL: has an invalid value of the option sslmode"
    assert_line(result.exit_code, err, "DIPTYCH_OPERATIONS_ADDRESS: " if is_client(command) else database)
