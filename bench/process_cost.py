"""What processes cost: their CPU time, with that of all their descendants, from /proc."""

import os
from collections.abc import Mapping
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class Meter:
    """Reads how much CPU time some processes have used since it was made.

    Args:
        roots: process ids by the name under which their time, and their descendants', is reported.
    """

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = roots
        self._before = self._seconds()

    def microseconds(self, operations: int) -> dict[str, float]:
        """Return each name's CPU time since then, in microseconds an operation."""
        now = self._seconds()
        return {name: (now[name] - self._before[name]) * 1e6 / max(1, operations) for name in self._roots}

    def _seconds(self) -> dict[str, float]:
        parents, used = _table()
        found = {}
        for name, root in self._roots.items():
            family, rest = set[int](), [root]
            while rest:
                family.add(process := rest.pop())
                rest += [child for child, parent in parents.items() if parent == process]
            found[name] = sum(used.get(process, 0.0) for process in family)
        return found


def _table() -> tuple[dict[int, int], dict[int, float]]:
    """Return each process's parent, and the seconds that it and its children that have ended have used."""
    parents, used = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            # The name in brackets may hold spaces; the state follows it.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        parents[int(folder.name)] = int(fields[1])
        used[int(folder.name)] = sum(map(int, fields[11:15])) / _TICKS
    return parents, used


def memory(process: int) -> int:
    """Return the bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
