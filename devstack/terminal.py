"""The terminal's keyboard, for one program alone.

Under `make up`, Ctrl-C goes to make as well, which then calls a clean stop an error (exit code 130). A group
of its own in the terminal's foreground gets it alone.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def keyboard() -> Iterator[None]:
    """Hold the terminal's foreground, where this process has it; else (a pipe, a script) change nothing."""
    terminal = _terminal()
    if terminal is None:
        yield
        return
    before = os.tcgetpgrp(terminal)
    # Only a foreground group may change it without this; and a stopped program would leave make waiting.
    for number in (signal.SIGTTOU, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpid())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, before)


def _terminal() -> int | None:
    """Return the terminal's descriptor, where this process is in its foreground, but does not lead that."""
    if not sys.stdin.isatty():
        return None
    terminal = sys.stdin.fileno()
    foreground = os.tcgetpgrp(terminal)
    return terminal if foreground == os.getpgrp() != os.getpid() else None
