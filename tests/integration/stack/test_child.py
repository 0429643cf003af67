"""Children that are executed, and those that tests fork, behave alike."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from devstack.child import Child, Output
from tests.support.harness.forked_process import ForkedChild
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
while True:
    time.sleep(0.01)  # a long sleep misses a signal that comes just before it
"""
# Its child leaves the process group, as PostgreSQL's do, and so survives what kills the group.
PARENT = """
import subprocess, time
print(subprocess.Popen(["sleep", "60"], start_new_session=True, close_fds=False).pid, flush=True)
time.sleep(60)
"""
OWN = """
import os, sys
groups = os.getsid(0), os.getpgid(0)
print(os.environ["A"], os.environ.get("HOME"), sys.path[:3], os.read(0, 1), *groups, sys.argv)
"""
DESCRIPTORS = """
import os
paths = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
print(*filter(os.path.isfile, paths))
"""
ORPHANING = """
import asyncio, os, sys
from pathlib import Path
from devstack.child import Child
from tests.support.harness.forked_process import ForkedChild

PROGRAM = '''
import signal, time
def stop(*_):
    print("stopped", flush=True)
    raise SystemExit
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
while True:
    time.sleep(0.01)
'''

async def main():
    log = Path(sys.argv[2])
    child = {"Child": Child, "ForkedChild": ForkedChild}[sys.argv[1]]
    await child("a program", [sys.executable, "-c", PROGRAM], log).start()
    while log.read_text() != "up\\n":
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
LONG = 100_000


Start = Callable[..., Child]


@pytest.fixture(params=[Child, ForkedChild])
def python(request: pytest.FixtureRequest) -> Start:
    def create(program: str, output: Output, **options: Any) -> Child:
        child: Child = request.param("a program", [sys.executable, "-c", program], output, **options)
        return child

    return create


async def test_its_lines_go_to_a_function_one_by_one_however_long(python: Start) -> None:
    said: list[str] = []
    child = python(f"print('one'); print('x' * {LONG}); print('no end', end='')", said.append)
    await child.start()
    assert await child.wait_ended() == 0
    assert said == ["one", "x" * LONG, "no end"]


async def test_its_lines_go_to_a_file_after_those_of_the_run_before(python: Start, tmp_path: Path) -> None:
    child = python("print('line')", tmp_path / "log")
    for _ in range(2):
        await child.start()
        await child.wait_ended()
    assert (tmp_path / "log").read_text() == "line\nline\n"


async def test_one_that_does_not_stop_is_killed_in_the_end(python: Start) -> None:
    said: list[str] = []
    child = python(DEAF, said.append)
    await child.start()
    await until(lambda: said == ["deaf"])
    began = monotonic()
    assert await child.stop(seconds=0.2) == -signal.SIGKILL
    assert monotonic() - began < 5


async def test_a_frozen_one_can_be_stopped(python: Start) -> None:
    said: list[str] = []
    child = python(GRACEFUL, said.append)
    await child.start()
    await until(lambda: bool(said))
    child.freeze()
    assert await child.stop() == 7


async def test_it_has_ended_only_when_all_that_it_started_have(python: Start, tmp_path: Path) -> None:
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


async def test_stopping_one_that_never_started_or_has_ended_does_nothing(
    python: Start, tmp_path: Path
) -> None:
    child = python("raise SystemExit(3)", tmp_path / "log")
    assert await child.stop() == 0
    await child.start()
    await child.wait_ended()
    assert await child.stop() == 3


async def test_its_variables_are_all_given_and_its_session_and_stdin_are_its_own(python: Start) -> None:
    said: list[str] = []
    child = python(OWN, said.append, environment={"PYTHONPATH": "/a:/b", "A": "1"})
    await child.start()
    pid = child.process.pid
    assert await child.wait_ended() == 0
    assert said == [f"1 None ['', '/a', '/b'] b'' {pid} {pid} ['-c']"]


async def test_it_inherits_only_what_it_is_given(python: Start, tmp_path: Path) -> None:
    said: list[str] = []
    with (tmp_path / "kept").open("w") as kept, (tmp_path / "other").open("w"):
        child = python(DESCRIPTORS, said.append, keep=[kept.fileno()])
        await child.start()
        assert await child.wait_ended() == 0
    assert said == [str(tmp_path / "kept")]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_it_ends_with_its_parent(python: Start, tmp_path: Path) -> None:
    log = tmp_path / "log"
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ORPHANING, type(python("", log)).__name__, str(log))
    )
    assert await parent.wait() == -signal.SIGKILL
    await until(lambda: log.read_text() == "up\nstopped\n")
