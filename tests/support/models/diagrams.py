"""What a page draws as a state diagram, and what rules really do, as found by trying everything."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from command_server.kernel.decider import Rejected
from tests.support.harness.world import World

DOCS = Path(__file__).parents[3] / "docs"
Edge = tuple[str, str, str]
"""From, to, and the command."""


def drawn(page: str) -> set[Edge]:
    """Return the arrows of the diagrams on a page of the documentation."""
    return set(re.findall(r"^    (\S+) --> ([^\s:]+) ?: (\w+)", (DOCS / page).read_text(), re.MULTILINE))


def found(
    make: Callable[[], World],
    stream: str,
    pasts: Mapping[str, Sequence[Any]],
    commands: Sequence[Any],
    late: timedelta,
) -> Iterator[Edge]:
    """Yield every change of one aggregate's status.

    Args:
        make: returns a world in which the aggregate does not exist yet.
        stream: the aggregate's.
        pasts: for each status, the commands that lead there; `[*]` for none.
        commands: what is tried in each.
        late: how much later each is tried once more.
    """
    for status, past in pasts.items():
        for command in commands:
            for pause in (timedelta(0), late):
                world = make()
                world.do(*past)
                assert _status(world, stream) == status
                world.now += pause
                try:
                    world.do(command)
                except Rejected:
                    continue
                if (after := _status(world, stream)) != status:
                    yield status, after, type(command).__name__


def _status(world: World, stream: str) -> str:
    name = str(world.state(stream).status.name)
    return "[*]" if name == "NONE" else name
