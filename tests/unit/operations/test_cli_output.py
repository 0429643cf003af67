"""The command line as a process: colours, closed pipes, Ctrl-C, and what it does not import."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PRINT = """
import click
from operations.cli_output import echo, echo_lines
from operations.cli_parts import CommandGroup
from operations.rendering.layout import Line

@click.group(cls=CommandGroup)
def main(): ...

@main.command()
def lines():
    echo_lines([Line("bad", "red")])
    for _ in range(100_000):
        echo("line")

@main.command()
def colour():
    echo_lines([Line("bad", "red"), Line("plain")])

@main.command()
def wait():
    import asyncio
    async def sleep():
        echo("waiting")
        await asyncio.sleep(60)
    asyncio.run(sleep())

main()
"""


def start(command: str, stdout: int, **variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PRINT, command],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **variables},
        cwd=Path(__file__).parents[3],
    )


def test_a_reader_that_has_gone_ends_it_quietly() -> None:
    process = start("lines", subprocess.PIPE)
    assert process.stdout and process.stderr
    assert process.stdout.readline() == b"bad\n"
    process.stdout.close()
    assert (process.wait(30), process.stderr.read()) == (141, b"")


def test_a_full_disk_is_one_line() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    process = start("colour", full)
    assert process.stderr
    assert process.wait(30) == 2
    assert process.stderr.read() == b"Error: the output cannot be written: No space left on device\n"


def test_ctrl_c_ends_it_quietly() -> None:
    process = start("wait", subprocess.PIPE)
    assert process.stdout and process.stderr
    assert process.stdout.readline() == b"waiting\n"
    process.send_signal(signal.SIGINT)
    assert (process.wait(30), process.stderr.read()) == (130, b"")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, b"\x1b[31mbad\x1b[0m\r\nplain"), ({"NO_COLOR": "1"}, b"bad\r\n"), ({"TERM": "dumb"}, b"bad\r\n")],
)
def test_colours_are_for_a_terminal_alone(variables: dict[str, str], expected: bytes) -> None:
    reader, writer = pty.openpty()
    process = start("colour", writer, **{"NO_COLOR": "", "TERM": "xterm", **variables})
    assert process.wait(30) == 0
    assert os.read(reader, 1000).startswith(expected)
    piped = start("colour", subprocess.PIPE, NO_COLOR="", TERM="xterm")
    assert piped.stdout
    assert piped.stdout.read() == b"bad\nplain\n"
    piped.wait(30)


@pytest.mark.parametrize("module", ["status", "projections", "records", "events", "sagas", "stores"])
def test_a_command_imports_no_library_that_only_others_need(module: str) -> None:
    heavy = {"sqlalchemy", "pydantic", "asyncpg", "nats", "redis", "alembic", "opentelemetry", "msgspec"}
    program = f"""
import sys, operations.cli, operations.commands.{module}
print(*({heavy!r} & {{name.partition(".")[0] for name in sys.modules}}))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
