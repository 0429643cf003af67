"""The command `diptych rehearse`: its output and its exit code."""

import asyncio
import os
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from time import monotonic

from operations.cli_output import echo, echo_json
from operations.progress import Progress
from operations.rehearse.rehearsal import Options, rehearse
from runtime.process.settings import Settings

EQUAL, DIFFERENT = 0, 1
NICENESS = 19
"""Added to that of this process, so that the live system goes first."""


def run(settings: Settings, options: Options, accepted: Collection[str], *, as_json: bool) -> int:
    """Rehearse, print the report, and return the exit code."""
    os.nice(NICENESS)
    began, progress = monotonic(), Progress("events", partial(echo, err=True))
    report = asyncio.run(rehearse(settings, replace(options, observe=progress.report)))
    seconds = monotonic() - began
    if as_json:
        echo_json(report.to_json(accepted))
    else:
        rate = report.counts["events"] / seconds
        echo(report.to_text(accepted))
        echo(f"{seconds:.1f} s, {rate:,.0f} events a second", err=True)
    return DIFFERENT if report.find_unaccepted(accepted) else EQUAL
