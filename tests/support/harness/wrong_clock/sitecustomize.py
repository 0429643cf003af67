"""Sets the clock of a Python process wrong, by the seconds that a file holds; monotonic clocks stay right.

Python imports this module at the start of each process that has its folder in PYTHONPATH.
"""

import os
import threading
from datetime import timedelta
from pathlib import Path
from time import sleep, time

import time_machine

INTERVAL = 0.02
"""Seconds between two readings of the file."""


def _follow(file: Path, traveller: time_machine.Traveller) -> None:
    applied = 0.0
    while True:
        if (wanted := float(file.read_text() or applied)) != applied:
            traveller.shift(timedelta(seconds=wanted - applied))
            applied = wanted
        sleep(INTERVAL)


if name := os.environ.get("WRONG_CLOCK_FILE"):
    traveller = time_machine.travel(time(), tick=True).start()
    threading.Thread(target=_follow, args=(Path(name), traveller), daemon=True).start()
