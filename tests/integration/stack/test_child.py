import asyncio
import os
import signal
import sys
from pathlib import Path
from time import monotonic

from devstack.child import Child, Output
from tests.support.harness.waiting import until

DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
GRACEFUL = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("up", flush=True)
time.sleep(60)
"""
# Its child leaves the process group, as PostgreSQL's do, and so survives what kills the group.
PARENT = """
import subprocess, time
print(subprocess.Popen(["sleep", "60"], start_new_session=True, close_fds=False).pid, flush=True)
time.sleep(60)
"""
LONG = 100_000


def python(program: str, output: Output) -> Child:
    return Child("a program", [sys.executable, "-c", program], output)


async def test_its_lines_go_to_a_function_one_by_one_however_long() -> None:
    said: list[str] = []
    child = python(f"print('one'); print('x' * {LONG}); print('no end', end='')", said.append)
    await child.start()
    assert await child.wait_ended() == 0
    assert said == ["one", "x" * LONG, "no end"]


async def test_its_lines_go_to_a_file_after_those_of_the_run_before(tmp_path: Path) -> None:
    child = python("print('line')", tmp_path / "log")
    for _ in range(2):
        await child.start()
        await child.wait_ended()
    assert (tmp_path / "log").read_text() == "line\nline\n"


async def test_one_that_does_not_stop_is_killed_in_the_end() -> None:
    said: list[str] = []
    child = python(DEAF, said.append)
    await child.start()
    await until(lambda: said == ["deaf"])
    began = monotonic()
    assert await child.stop(seconds=0.2) == -signal.SIGKILL
    assert monotonic() - began < 5


async def test_a_frozen_one_can_be_stopped() -> None:
    said: list[str] = []
    child = python(GRACEFUL, said.append)
    await child.start()
    await until(lambda: bool(said))
    child.freeze()
    assert await child.stop() == 7


async def test_it_has_ended_only_when_all_that_it_started_have(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = python(PARENT, log)
    await child.start()
    await until(lambda: log.read_text().endswith("\n"))
    ended = asyncio.create_task(child.kill())
    await child.process.wait()
    await asyncio.sleep(0.05)
    assert not ended.done()
    os.kill(int(log.read_text()), signal.SIGKILL)
    assert await ended == -signal.SIGKILL


async def test_stopping_one_that_never_started_or_has_ended_does_nothing(tmp_path: Path) -> None:
    child = python("raise SystemExit(3)", tmp_path / "log")
    assert await child.stop() == 0
    await child.start()
    await child.wait_ended()
    assert await child.stop() == 3
