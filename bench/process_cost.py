"""CPU time and memory of processes, from /proc."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class CpuMeter:
    """Measures the CPU time that processes and their descendants use after its creation.

    Args:
        roots: process ids by the name under which their CPU time is reported.
        descendants: whether theirs counts too.
    """

    def __init__(self, roots: Mapping[str, int], *, descendants: bool = True) -> None:
        self._roots = roots
        self._descendants = descendants
        self._start = self._read_seconds()

    def measure(self, operations: int) -> dict[str, float]:
        """Return the CPU time so far by name, in microseconds per operation."""
        now = self._read_seconds()
        return {name: (now[name] - self._start[name]) * 1e6 / max(1, operations) for name in self._roots}

    def _read_seconds(self) -> dict[str, float]:
        parents, used = _read_processes()
        seconds = {}
        for name, root in self._roots.items():
            family = _find_family(root, parents) if self._descendants else {root}
            seconds[name] = sum(used.get(process, 0.0) for process in family)
        return seconds


def list_families(roots: Iterable[int]) -> set[int]:
    """Return processes with all their descendants."""
    parents, _ = _read_processes()
    return set[int]().union(*(_find_family(root, parents) for root in roots))


def _find_family(root: int, parents: Mapping[int, int]) -> set[int]:
    family, unvisited = set[int](), [root]
    while unvisited:
        family.add(process := unvisited.pop())
        unvisited += [child for child, parent in parents.items() if parent == process]
    return family


def _read_processes() -> tuple[dict[int, int], dict[int, float]]:
    """Return each process's parent, and its CPU seconds including those of its ended children."""
    parents, used = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            # The name in brackets may contain spaces; the state follows it.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended meanwhile
            continue
        parents[int(folder.name)] = int(fields[1])
        used[int(folder.name)] = sum(map(int, fields[11:15])) / _TICKS_PER_SECOND
    return parents, used


def read_memory(process: int) -> int:
    """Return the resident memory of a process in bytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
