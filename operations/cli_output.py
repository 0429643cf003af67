"""The output of the command line: escaped lines that fit the terminal, JSON, and progress of long work.

Every command prints by these functions. A reader that has gone, as behind `| head`, ends the command without
a message; so does Ctrl-C (`operations.cli_parts`).
"""

import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import click

from operations.rendering.layout import Line
from runtime.process.terminal import escape, escape_lines

MIN_WIDTH = 40
CLOSED_PIPE = 128 + signal.SIGPIPE
"""The exit code of a command whose reader has gone, as a shell reports it."""
CLEAR = "\x1b[H\x1b[2J\x1b[3J"
"""Clears a terminal and its scrollback."""


class _OutputLost(click.ClickException):
    exit_code = 2  # 1 would say that something is not fine


def get_width() -> int:
    """Return the columns of the terminal, or COLUMNS; 80 where there is none of them."""
    return max(MIN_WIDTH, shutil.get_terminal_size().columns)


def echo(text: str, *, err: bool = False) -> None:
    """Print lines to stdout, or to stderr. Texts of callers and servers are escaped."""
    _print(escape_lines(text), err=err)


def echo_lines(lines: Iterable[Line]) -> None:
    """Print lines, in their colours if stdout is a terminal and NO_COLOR is not set."""
    _print("\n".join(click.style(escape(line.text), fg=line.colour or None) for line in lines))


def echo_json(line: str) -> None:
    """Print one line of JSON."""
    _print(line)


def redraw(lines: Iterable[Line]) -> None:
    """Print lines on a terminal that is cleared; elsewhere after the earlier output."""
    if sys.stdout.isatty():
        _print(CLEAR, newline=False)
    echo_lines(lines)


def _print(text: str, *, err: bool = False, newline: bool = True) -> None:
    colours = False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None
    with stopping_at_closed_output(err=err):
        click.echo(text, err=err, color=colours, nl=newline)


@contextmanager
def stopping_at_closed_output(*, err: bool = False) -> Iterator[None]:
    """End the command if stdout, or stderr, cannot be written: without a message if its reader has gone."""
    try:
        yield
    except OSError as error:
        stream = sys.stderr if err else sys.stdout
        # The interpreter flushes the stream once more when it ends, which would fail again, with a message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise SystemExit(CLOSED_PIPE) from error
        raise _OutputLost(f"the output cannot be written: {error.strerror}") from error
