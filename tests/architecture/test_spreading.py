"""The suite's processes: what shares a stack is run by one of them; if it were not, only time would tell."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST = """
import os
import pathlib
import pytest


@pytest.mark.parametrize("number", range(4))
def test_something(number):
    pathlib.Path(__file__).with_suffix(f".{number}").write_text(os.environ["PYTEST_XDIST_WORKER"])
"""
FILES = ("e2e/test_a.py", "e2e/test_b.py", "faults/test_c.py", "integration/test_d.py", "unit/test_e.py")


def test_a_folder_with_a_stack_and_a_file_without_stay_in_one_process(tmp_path: Path) -> None:
    for file in FILES:
        path = tmp_path / "tests" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEST)
    command = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "-p",
        "tests.support.harness.spreading",
        "tests",
    )
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    processes: defaultdict[Path, set[str]] = defaultdict(set)
    for file in FILES:
        path = tmp_path / "tests" / file
        unit = path if file.startswith(("integration", "unit")) else path.parent
        processes[unit] |= {path.with_suffix(f".{number}").read_text() for number in range(4)}
    assert [len(found) for found in processes.values()] == [1] * 4
    assert len(set.union(*processes.values())) == 2
