"""The state diagrams of the documentation, and the transitions that the rules allow, found by trial."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from command_server.kernel.decider import Rejected
from diptych_testing.world import World

DOCS = Path(__file__).parents[3] / "docs"
Transition = tuple[str, str, str]
"""Status before, status after, and the command's class name."""


def read_diagram(page: str) -> set[Transition]:
    """Return the arrows of all state diagrams on a page of the documentation."""
    return set(re.findall(r"^    (\S+) --> ([^\s:]+) ?: (\w+)", (DOCS / page).read_text(), re.MULTILINE))


def find_transitions(
    make_world: Callable[[], World],
    stream: str,
    histories: Mapping[str, Sequence[Any]],
    commands: Sequence[Any],
    delay: timedelta,
) -> Iterator[Transition]:
    """Yield every change of one aggregate's status.

    Args:
        make_world: returns a world in which the aggregate does not exist.
        stream: the aggregate's stream.
        histories: the commands that lead to each status; `[*]` is the status before the first command.
        commands: the commands to try in each status.
        delay: each command is tried immediately, and in another world after this time.
    """
    for status, history in histories.items():
        for command in commands:
            for wait in (timedelta(0), delay):
                world = make_world()
                world.execute(*history)
                assert _status(world, stream) == status
                world.now += wait
                try:
                    world.execute(command)
                except Rejected:
                    continue
                if (after := _status(world, stream)) != status:
                    yield status, after, type(command).__name__


def _status(world: World, stream: str) -> str:
    name = str(world.state(stream).status.name)
    return "[*]" if name == "NONE" else name
