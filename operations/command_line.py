"""Parts of a command line: durations, settings, and failures that are one line on stderr with exit code 1."""

import sys
from datetime import timedelta

import click

from runtime.process.settings import Settings
from runtime.process.start_error import StartError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[timedelta]):
    """A time span as people write it: 90s, 15m, 1h, 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the time span, or say what one looks like."""
        number, unit = str(value)[:-1], str(value)[-1:]
        if isinstance(value, timedelta):
            return value
        if not number.isdecimal() or unit not in _SECONDS:
            self.fail(f"{value!r} is not a time like 90s, 15m, 1h or 7d", param, ctx)
        return timedelta(seconds=int(number) * _SECONDS[unit])


class CommandGroup(click.Group):
    """Commands whose failure is a line, not a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except StartError as error:
            raise click.ClickException(str(error)) from error
        except Exception as error:
            from operations.unreachable import AWAY, why

            if not isinstance(error, AWAY):
                raise
            raise click.ClickException(f"a server is away: {why(error)}") from error


def read_settings() -> Settings:
    """Return what DIPTYCH_* variables say; lines of libraries are for stderr, from errors on."""
    from runtime.process import logs
    from runtime.process.lifecycle import read_settings

    logs.configure("error", "console", sys.stderr.buffer)
    return read_settings()
