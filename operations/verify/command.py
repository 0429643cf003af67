"""The command `diptych verify`: its output and its exit code."""

import asyncio
from functools import partial

from operations.cli_output import echo
from operations.progress import Progress
from operations.server_errors import summarize
from operations.verify.verification import UNVERIFIABLE, verify
from runtime.process.settings import Settings

CLEAN, DRIFT, UNCHECKED = 0, 1, 2


def run(settings: Settings, within: float, max_findings: int, as_json: bool) -> int:
    """Verify, print the report, and return the exit code."""
    progress = Progress("events", partial(echo, err=True))
    try:
        report = asyncio.run(
            verify(settings, within=within, max_findings=max_findings, observe=progress.report)
        )
    except UNVERIFIABLE as error:
        echo(f"cannot verify: {summarize(error)}", err=True)
        return UNCHECKED
    echo(report.to_json() if as_json else report.to_text())
    return CLEAN if report.clean else DRIFT
