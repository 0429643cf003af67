"""Rehearses the installed code again and again, until it is killed; a line on stdout before each time.

Run as `python -m bench.rehearsals RATE`: events a second, 0 for full speed.
"""

import asyncio
import os
import sys

from operations.rehearse.command import NICENESS
from operations.rehearse.rehearsal import Options, rehearse
from runtime.process import logs
from runtime.process.settings import Settings


async def main(rate: int) -> None:
    while True:
        print("rehearsing", flush=True)
        await rehearse(Settings(), Options(rate=rate))


if __name__ == "__main__":
    os.nice(NICENESS)
    logs.configure("error", "console", sys.stderr.buffer)
    asyncio.run(main(int(sys.argv[1])))
