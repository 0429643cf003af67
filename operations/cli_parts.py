"""Parts of a command line: durations, settings, and failures that are one line on stderr.

Their exit code is 1, or 2 for an invalid setting or argument.
"""

import sys
from datetime import timedelta

import click

from runtime.process.durations import parse_duration
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, StartError
from runtime.process.terminal import escape, escape_lines, is_unicode

MAX_REASON_LENGTH = 500
"""Characters of an operator's reason: a context's commands take it over."""


class Duration(click.ParamType[timedelta]):
    """A duration such as 90s, 15m, 1h or 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration; fail with an example if the text is none."""
        try:
            return value if isinstance(value, timedelta) else parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Reason(click.ParamType[str]):
    """A text that every command of a context takes as a reason: one printable line of limited length."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text; fail if a context would refuse it, which would block the saga."""
        text = str(value)
        if not 0 < len(text.strip()) <= len(text) <= MAX_REASON_LENGTH or not text.isprintable():
            self.fail(f"must be one line of 1 to {MAX_REASON_LENGTH} printable characters", param, ctx)
        return text


def echo(text: str, *, err: bool = False) -> None:
    """Print lines to stdout, or to stderr. What callers or servers wrote in them is escaped."""
    click.echo(escape_lines(text), err=err)


class _SettingFailure(click.ClickException):
    exit_code = InvalidSetting.exit_code


class CommandGroup(click.Group):
    """Commands that fail with one line instead of a traceback."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not all(map(is_unicode, args)):
            raise click.UsageError("an argument is not UTF-8", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except StartError as error:
            failure = _SettingFailure if isinstance(error, InvalidSetting) else click.ClickException
            raise failure(escape(str(error))) from error
        except Exception as error:
            from operations.server_errors import UNREACHABLE, summarize

            if not isinstance(error, UNREACHABLE):
                raise
            text = f"a server is unreachable: {summarize(error)}"
            raise click.ClickException(escape(text)) from error


def read_settings() -> Settings:
    """Return the settings of the DIPTYCH_* variables, and send log lines from errors up to stderr."""
    from runtime.process import logs
    from runtime.process.lifecycle import read_settings

    logs.configure("error", "console", sys.stderr.buffer)
    return read_settings()
