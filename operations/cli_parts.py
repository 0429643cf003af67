"""Parts of a command line: durations, settings, and failures that are one line on stderr with exit code 1."""

import sys
from datetime import timedelta

import click

from runtime.process.settings import Settings
from runtime.process.start_error import StartError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[timedelta]):
    """A duration such as 90s, 15m, 1h or 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration; fail with an example if the text is none."""
        number, unit = str(value)[:-1], str(value)[-1:]
        if isinstance(value, timedelta):
            return value
        if not number.isdecimal() or unit not in _SECONDS:
            self.fail(f"{value!r} is not a time like 90s, 15m, 1h or 7d", param, ctx)
        return timedelta(seconds=int(number) * _SECONDS[unit])


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
