"""Parts of a command line: durations, settings, and failures that are one line on stderr with exit code 1."""

import sys
from datetime import timedelta

import click

from runtime.process.durations import parse_duration
from runtime.process.settings import Settings
from runtime.process.start_error import StartError


class Duration(click.ParamType[timedelta]):
    """A duration such as 90s, 15m, 1h or 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration; fail with an example if the text is none."""
        try:
            return value if isinstance(value, timedelta) else parse_duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CommandGroup(click.Group):
    """Commands that fail with one line instead of a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except StartError as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            from operations.server_errors import UNREACHABLE, summarize

            if not isinstance(error, UNREACHABLE):
                raise
            raise click.ClickException(f"a server is unreachable: {summarize(error)}") from error


def read_settings() -> Settings:
    """Return the settings of the DIPTYCH_* variables, and send log lines from errors up to stderr."""
    from runtime.process import logs
    from runtime.process.lifecycle import read_settings

    logs.configure("error", "console", sys.stderr.buffer)
    return read_settings()
