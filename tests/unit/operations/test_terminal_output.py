"""No command prints what callers or servers wrote without escaping it."""

import ast
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from operations import cli, cli_output, cli_parts
from operations.verify.model import Problem
from operations.verify.report import Report
from runtime.process.start_error import StartError

BAD = "x\x1b[2J\r\nforged\x9b\u202e"


def find_calls(path: Path) -> list[str]:
    """Return the calls in a module that print without escaping."""
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [
        ast.unparse(call) for call in calls if ast.unparse(call) in ("print", "click.echo", "click.secho")
    ]


def test_all_commands_print_through_echo() -> None:
    folder = Path(cli.__file__).parent
    modules = [
        path
        for path in folder.rglob("*.py")
        if path.name != "cli_output.py" and "new_context" not in path.parts
    ]
    assert len(modules) > 50
    assert {path.name: calls for path in modules if (calls := find_calls(path))} == {}
    assert find_calls(Path(cli_output.__file__)) == ["click.echo"]


def assert_lines(text: str, count: int) -> None:
    lines = text.removesuffix("\n").split("\n")
    assert len(lines) == count
    assert all(line.isprintable() for line in lines)


def test_findings_of_verify_are_a_line_each() -> None:
    report = Report(notes=[BAD])
    report.add(Problem("events", BAD, BAD))
    assert "forged" in report.to_text()
    assert_lines("\n".join(report.to_text().split("\n")[-2:]), 2)


@pytest.mark.parametrize("make", [StartError, ConnectionRefusedError])
def test_an_error_is_one_line(make: Callable[[str], Exception]) -> None:
    @click.group(cls=cli_parts.CommandGroup)
    def group() -> None: ...

    @group.command()
    def fail() -> None:
        raise make(BAD)

    result = CliRunner().invoke(group, ["fail"])
    assert_lines(result.stderr, 1)


def test_an_argument_that_is_no_unicode_is_one_line() -> None:
    result = CliRunner().invoke(cli.main, ["events", "ledger.cheque.\udcff"])
    assert result.exit_code == 2
    assert "an argument is not UTF-8" in result.stderr


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "two\nlines", "\x1b[2J"])
def test_a_reason_that_a_command_would_refuse_is_refused(reason: str) -> None:
    result = CliRunner().invoke(cli.main, ["sagas", "abort", "o-1", "--reason", reason])
    assert result.exit_code == 2
    assert "must be one line of 1 to 500 printable characters" in result.stderr
