"""Tests that share a stack run in one worker; a violation would only show as a slower suite."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tests.support.harness.spreading import GROUPS, group_of

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
    run = subprocess.run(
        (
            *(sys.executable, "-m", "pytest", "-q", "-n", "2"),
            *("-p", "tests.support.harness.spreading", "tests"),
        ),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    workers: defaultdict[Path, set[str]] = defaultdict(set)
    for file in FILES:
        path = tmp_path / "tests" / file
        group = path if file.startswith(("integration", "unit")) else path.parent
        workers[group] |= {path.with_suffix(f".{number}").read_text() for number in range(4)}
    assert [len(names) for names in workers.values()] == [1] * 4
    assert len(set.union(*workers.values())) == 2


def test_every_path_of_a_group_exists_and_is_listed_once() -> None:
    paths = [path for group in GROUPS for path in group]
    assert len(set(paths)) == len(paths)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_a_named_file_leaves_the_group_of_its_folder() -> None:
    assert group_of("tests/e2e/test_up.py::test_a") != group_of("tests/e2e/test_orders.py::test_a[x/y]")
    assert group_of("tests/e2e/test_demo.py::test_a") == group_of("tests/e2e/test_orders.py::test_a[x/y]")
    assert group_of("tests/unit/test_a.py::test_a") == "tests/unit/test_a.py"
