"""Distribution of the suite over worker processes.

Tests that share an expensive fixture run in one worker. The longest groups start first, so that all workers
end at about the same time. The scheduler is our own because pytest-xdist's `xdist_group` has no effect with
this version of pytest, which makes node ids read-only.
"""

from pathlib import PurePosixPath
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

OWN_STACKS = (
    "assessments",
    "changed_caller",
    "contending_managers",
    "exhausted_limits",
    "full_stores",
    "greedy_callers",
    "handover",
    "large_events",
    "log_stream",
    "operations_status",
    "operator_commands",
    "record_index",
    "seen_processes",
    "shared_reading",
    "silent_targets",
    "traces",
    "unreadable_sagas",
    "verdicts",
    "waiting_saga_queries",
)
"""Tests of faults that do not use the stack of their folder."""
GROUPS: tuple[tuple[str, ...], ...] = (
    (
        "tests/faults/test_servers_away.py",
        "tests/faults/test_wiped_stores.py",
        "tests/faults/test_restored_database.py",
    ),
    ("tests/faults/test_seen_faults.py",),
    ("tests/e2e",),
    ("tests/e2e/test_fulfilment.py",),
    ("tests/integration/verify",),
    ("tests/faults",),
    ("tests/e2e/test_up.py",),
    ("tests/integration/contexts/test_verify_fulfilment.py",),
    ("tests/integration/relay/test_relay_errors.py", "tests/integration/relay/test_stream_builds.py"),
    ("tests/integration/relay/test_relay_process.py",),
    ("tests/integration/projector/test_projector_process.py",),
    ("tests/integration/edge/test_process.py",),
    ("tests/integration/verify/test_live.py",),
    ("tests/e2e/test_observability.py",),
    *((f"tests/faults/test_{name}.py",) for name in OWN_STACKS),
)
"""Files and folders that one worker runs together, in the order of execution: long groups first.

Fault tests mostly wait for recovery; their two groups run beside tests that use the CPU.

A folder stands for its files that no group names. All other files are groups of their own and come last.
"""
_GROUP_OF = {path: number for number, group in enumerate(GROUPS) for path in group}


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "GroupScheduling":
    config.option.loadscopereorder = False
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort the tests by group, in a worker only: a single process keeps pytest's order."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(item.nodeid))


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Assigns one group at a time to a worker."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """Return the name of a test's group: a number of GROUPS, or the test's file."""
    file = nodeid.partition("::")[0]
    number = _GROUP_OF.get(file, _GROUP_OF.get(str(PurePosixPath(file).parent)))
    return file if number is None else str(number)


def rank(nodeid: str) -> int:
    """Return the position of a test's group in the order of execution."""
    group = group_of(nodeid)
    return int(group) if group.isdecimal() else len(GROUPS)
