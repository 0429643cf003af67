"""Cores of their own: shares of the machine for groups of processes."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.process_cost import list_families

Cores = frozenset[int]


def split_cores() -> tuple[Cores, Cores]:
    """Return two halves of this process's cores; both are all of them if there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    half = (len(cores) + 1) // 2
    return frozenset(cores[:half]), frozenset(cores[half:] or cores)


def describe_cores(cores: Cores) -> str:
    return f"core{'s' * (len(cores) > 1)} {', '.join(map(str, sorted(cores)))}"


@contextmanager
def pin(processes: Iterable[int], cores: Cores) -> Iterator[None]:
    """Let processes, their descendants and all their threads run on these cores alone, within the context."""
    everything = frozenset(os.sched_getaffinity(0))
    processes = list(processes)
    _set_affinity(processes, cores)
    try:
        yield
    finally:
        _set_affinity(processes, everything)


def _set_affinity(processes: Iterable[int], cores: Cores) -> None:
    """Set the cores of all threads; those that they start later inherit them."""
    for process in list_families(processes):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            for thread in Path(f"/proc/{process}/task").iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), cores)
