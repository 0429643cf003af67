"""Copies of the code with changed lines, and their rehearsal over the events of a stack."""

import asyncio
import json
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.stack import Stack, variables

ROOT = Path(__file__).parents[3]
PACKAGES = ("command_server", "contracts", "operations", "process_manager", "projector", "runtime")


@dataclass(frozen=True)
class Change:
    """One changed line, and the difference that it has to make: its kind and its field."""

    file: str
    old: str
    new: str
    finds: tuple[str, str]


def plant(tree: Path, *changes: Change) -> None:
    """Copy the packages of the processes to a folder, with these changes."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package)
    _replace(tree / "operations/rehearse/command.py", "    os.nice(NICENESS)\n", "")  # other tests go on
    for change in changes:
        _replace(tree / change.file, change.old, change.new)


def _replace(file: Path, old: str, new: str) -> None:
    source = file.read_text()
    assert source.count(old) == 1, (file, old)
    file.write_text(source.replace(old, new))


async def rehearse_copy(stack: Stack, tree: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run `diptych rehearse` of a copy; return its exit code and its report."""
    environment = {**os.environ, **variables(stack.settings), "PYTHONPATH": str(tree)}
    command = (sys.executable, "-m", "operations.cli", "rehearse", "--json", "--processes", "1", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tree, env=environment, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate()
    assert out, err.decode()
    return process.returncode or 0, json.loads(out)


def list_differences(report: dict[str, Any]) -> set[tuple[str, str]]:
    return {(each["kind"], each["field"]) for each in report["differences"]}
