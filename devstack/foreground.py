"""A foreground process group of its own, so that Ctrl-C reaches this program alone.

Under `make up`, Ctrl-C reaches make as well, which then reports a clean stop as an error (exit code 130). A
process group of its own in the terminal's foreground receives it alone.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_foreground() -> Iterator[None]:
    """Move this process into a foreground group of its own; change nothing in a pipe or script."""
    terminal = _open_terminal()
    if terminal is None:
        yield
        return
    previous_group = os.tcgetpgrp(terminal)
    # Otherwise only a foreground group may change the foreground, and a suspended program would block make.
    for number in (signal.SIGTTOU, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpid())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, previous_group)


def _open_terminal() -> int | None:
    """Return the terminal's descriptor if this process is in its foreground group without leading it."""
    if not sys.stdin.isatty():
        return None
    terminal = sys.stdin.fileno()
    foreground = os.tcgetpgrp(terminal)
    return terminal if foreground == os.getpgrp() != os.getpid() else None
