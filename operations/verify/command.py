"""`diptych verify` as a command: what it prints, and its exit code."""

import asyncio

import click

from operations.unreachable import AWAY, why
from operations.verify.sources.stream import StreamChanged
from operations.verify.verification import verify
from runtime.jetstream import ReaderLost
from runtime.process.settings import Settings

CLEAN, DRIFT, UNCHECKED = 0, 1, 2


def run(settings: Settings, within: float, findings: int, as_json: bool) -> int:
    """Verify, print what came of it, and return the exit code."""
    try:
        report = asyncio.run(verify(settings, within=within, shown=findings))
    except (*AWAY, StreamChanged, ReaderLost) as error:
        click.echo(f"could not be checked: {why(error)}", err=True)
        return UNCHECKED
    click.echo(report.json() if as_json else report.page())
    return CLEAN if report.clean else DRIFT
