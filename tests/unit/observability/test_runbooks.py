"""Each alert has a summary, a severity and a runbook; each runbook has its alert and real commands."""

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from operations.cli import main as cli
from tests.support.harness.expressions import read_alerts

FOLDER = Path(__file__).parents[3] / "docs/runbooks"
PAGES = sorted(FOLDER.glob("*.md"))
SECTIONS = ["## How to look", "## Cause", "## What to do"]


@pytest.mark.parametrize("alert", read_alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_has_summary_severity_and_runbook(alert: Mapping[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"]["summary"]
    page = alert["annotations"]["runbook_url"].removeprefix("{{ $externalLabels.runbooks }}/")
    assert (FOLDER / page).read_text().startswith(f"# {alert['alert']}\n\n**Symptom.** ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_has_all_sections_and_an_alert(page: Path) -> None:
    text = page.read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert text.splitlines()[0][2:] in {alert["alert"] for alert in read_alerts()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_is_on_the_page_of_alerts(page: Path) -> None:
    title = page.read_text().splitlines()[0][2:]
    assert f"[{title}](runbooks/{page.name})" in (FOLDER.parent / "observability.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_runbook_lead_to_pages(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert (FOLDER / link).is_file(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_runbook_exist(page: Path) -> None:
    for line in commands_of(page.read_text()):
        _, *words = shlex.split(line, comments=True)
        check_command(cli, words)


def commands_of(text: str) -> Iterator[str]:
    """Yield the calls of `diptych` in code."""
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        yield from (line for line in block.splitlines() if line.startswith("diptych "))
    yield from re.findall(r"`(diptych [a-z][^`]*)`", text)


def check_command(command: click.Command, words: list[str]) -> None:
    """Parse the words as the command line does, without running anything."""
    while isinstance(command, click.Group):
        name = words.pop(0) if words else ""
        subcommand = command.get_command(click.Context(command), name)
        assert subcommand is not None, f"{command.name} {name}: no such command"
        command = subcommand
    command.make_context(command.name, words)
