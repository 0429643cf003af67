"""`diptych status`: whether anything needs attention, and the state of the whole system."""

import sys
from time import sleep
from typing import Any

import click
from diptych.operations.v1.operations_service_pb2 import GetStatusRequest

from operations.cli_output import echo, echo_json, echo_lines, get_width, redraw
from operations.client.api import STATUS_TIMEOUT, open_api
from operations.commands import options
from operations.rendering.layout import BAD, Line, lay_out_text
from operations.rendering.status import render_status
from runtime.process.start_error import NotAsked

INTERVAL = 2.0
"""Seconds between two readings of --watch."""


@click.command()
@click.option("--watch", is_flag=True, help=f"Show it again every {INTERVAL:g} s, until Ctrl-C.")
@options.as_json
def status(watch: bool, as_json: bool) -> None:
    """Show OK or what needs attention, and the state of all parts.

    Exit code 0: nothing needs attention. 1: the first line says what does. 2: the operations server could
    not be asked.
    """
    while watch:
        _watch_once(as_json)
        sleep(INTERVAL)
    status = _read_status()
    if as_json:
        _echo_object(status)
    else:
        echo_lines(render_status(status, get_width()))
    sys.exit(0 if status.healthy else 1)


def _watch_once(as_json: bool) -> None:
    try:
        status = _read_status()
    except NotAsked as error:  # the watch continues: somebody may wait for this server to return
        if as_json:
            echo(f"Error: {error}", err=True)
        else:
            redraw([*lay_out_text(str(error), get_width(), BAD), Line("")])
    else:
        if as_json:
            _echo_object(status)
        else:
            redraw([*render_status(status, get_width()), Line("")])


def _read_status() -> Any:
    with open_api() as api:  # a channel for each reading: one that cannot connect waits longer each time
        return api.call(api.stub.GetStatus, GetStatusRequest(), timeout=STATUS_TIMEOUT).status


def _echo_object(status: Any) -> None:
    from operations.rendering.json_lines import format_message

    echo_json(format_message(status))
