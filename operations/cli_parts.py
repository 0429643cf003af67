"""Parts of a command line: groups of commands, settings, and failures that are one line on stderr.

Exit codes: 0 fine; 1 not fine; 2 an invalid setting or argument, or a server that could not be asked; 130
after Ctrl-C; 141 if the reader of the output has gone.
"""

import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from runtime.process.start_error import NotAsked, StartError
from runtime.process.terminal import escape, is_unicode

if TYPE_CHECKING:
    from runtime.process.settings import Settings

INTERRUPTED = 128 + signal.SIGINT
"""The exit code after Ctrl-C, as a shell reports it."""


def _report(error: StartError) -> int:
    """Print an error; return its exit code."""
    click.ClickException(escape(str(error))).show()
    return error.exit_code


class CommandGroup(click.Group):
    """Commands that fail with one line instead of a traceback, and end quietly on Ctrl-C.

    Args:
        modules: the commands that are imported when they are called, as `module:name` by the command's name.
    """

    def __init__(self, *args: Any, modules: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._modules = dict(modules or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._modules, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._modules:
            return super().get_command(ctx, cmd_name)
        module, _, name = self._modules[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not all(map(is_unicode, args)):
            raise click.UsageError("an argument is not UTF-8", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except StartError as error:
            sys.exit(_report(error))
        except Exception as error:
            from operations.server_errors import UNREACHABLE, summarize

            if not isinstance(error, UNREACHABLE):
                raise
            sys.exit(_report(NotAsked(f"a server is unreachable: {summarize(error)}")))


def read_settings() -> "Settings":
    """Return the settings of the DIPTYCH_* variables, and send log lines from errors up to stderr."""
    from runtime.process import logs
    from runtime.process.lifecycle import read_settings

    logs.configure("error", "console", sys.stderr.buffer)
    return read_settings()
