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
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        yield
        return
    before = os.tcgetpgrp(terminal)
    if not sys.stdin.isatty() or before != os.getpgrp() or before == os.getpid():
        os.close(terminal)
        yield
        return
    # Only a foreground group may change it without this; and a stopped program would leave make waiting.
    for number in (signal.SIGTTOU, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpid())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, before)
        os.close(terminal)
