"""How the suite is spread over processes: what shares servers stays together, what takes longest comes first.

A scheduler of our own, since pytest-xdist's groups take no effect with a pytest whose node ids cannot be set.
"""

from pathlib import PurePosixPath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

SHARING = ("tests/faults", "tests/e2e", "tests/integration/verify")
"""Folders whose tests share what takes long to make: one process runs them all, the longest first."""

APART = ("tests/e2e/test_fulfilment.py", "tests/e2e/test_observability.py", "tests/e2e/test_up.py")
"""Files in such a folder that start stacks of their own: the shared one need not run idle beside them."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "Spread":
    """Spread the tests as their servers want it."""
    config.option.loadscopereorder = False
    return Spread(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes longest where tests run in several processes, so that these end together."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))


class Spread(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a process one file after another, or a whole folder whose tests share more."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """Return what a test must not be parted from: its folder, or its file."""
    file = nodeid.partition("::")[0]
    folder = str(PurePosixPath(file).parent)
    return folder if folder in SHARING and file not in APART else file


def rank(nodeid: str) -> int:
    """Return when a test's turn is; the smallest first."""
    found = unit(nodeid)
    return SHARING.index(found) if found in SHARING else len(SHARING)
