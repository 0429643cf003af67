"""Stubs, client and servers have one version, which the file VERSION states."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from runtime.process.version import VERSION

ROOT = Path(__file__).parents[2]
STATED = (ROOT / "VERSION").read_text().strip()


@pytest.mark.parametrize("package", ["diptych", "diptych-client", "diptych-stubs"])
def test_a_package_has_the_stated_version(package: str) -> None:
    assert version(package) == STATED


@pytest.mark.parametrize("folder", [".", "client", "generated"])
def test_a_project_states_no_version_of_its_own(folder: str) -> None:
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert (ROOT / folder / project["tool"]["hatch"]["version"]["path"]).resolve() == ROOT / "VERSION"


def test_the_command_line_shows_the_version() -> None:
    diptych = Path(sys.executable).with_name("diptych")
    shown = subprocess.run([diptych, "--version"], check=True, capture_output=True, text=True).stdout
    assert (shown, VERSION) == (f"diptych {STATED}\n", STATED)
