"""The writer of log lines, on streams that are full, broken, shared or not read."""

import fcntl
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from runtime.process.logs.stream_writer import StreamWriter

LINE = b"%06d " + b"x" * 92 + b"\n"


def report(count: int, _error: str) -> bytes:
    return b"dropped %d\n" % count


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def read_lines(end: int, until: bytes) -> list[bytes]:
    """Read until a line begins with these bytes, at most 20 seconds."""
    text = b""
    while not any(line.startswith(until) for line in text.split(b"\n")[:-1]):
        assert select.select([end], [], [], 20)[0], text[-200:]
        text += os.read(end, 65_536)
    return text.splitlines(keepends=True)


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_that_nobody_reads_are_dropped_counted_and_reported(
    pipe: tuple[int, int], blocking: bool
) -> None:
    os.set_blocking(pipe[1], blocking)
    writer = StreamWriter(pipe[1], report, capacity=100_000)
    start = monotonic()
    for number in range(10_000):
        writer.add(LINE % number, urgent=number % 100 == 0)
    assert not writer.flush(0.1)
    assert monotonic() - start < 5, "10,000 lines, of which none waits"
    *lines, last = read_lines(pipe[0], b"dropped")
    assert lines == [LINE % number for number in range(len(lines))], "whole, in order, none twice"
    assert last == report(10_000 - len(lines), "")
    writer.add(LINE % 1, urgent=False)
    assert read_lines(pipe[0], b"000001") == [LINE % 1]


def test_lines_arrive_once_a_reader_returns(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = StreamWriter(os.open(tmp_path / "fifo", os.O_WRONLY), report)
    os.close(reader)
    writer.add(LINE % 1, urgent=True)
    assert not writer.flush(0.1), "EPIPE"
    reader = os.open(tmp_path / "fifo", os.O_RDONLY)
    assert read_lines(reader, b"000001") == [LINE % 1]
    os.close(reader)


FULL_DISK = """
import os, resource, sys
from runtime.process.logs.stream_writer import StreamWriter
_, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_050, limit))
writer = StreamWriter(1, lambda count, error: b"dropped %d\\n" % count, capacity=100_000)
for number in range(5_000):
    writer.add(b"%06d " % number + b"x" * 92 + b"\\n", False)
assert not writer.flush(0.1)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
assert writer.flush(5)
"""


def test_a_full_file_tears_no_line(tmp_path: Path) -> None:
    """The limit of a file's size acts like a full disk: it takes a part of a line, and then none."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        subprocess.run([sys.executable, "-c", FULL_DISK], stdout=file, check=True)
    *lines, last = path.read_bytes().splitlines(keepends=True)
    assert lines == [LINE % number for number in range(len(lines))]
    assert last == report(5_000 - len(lines), "")


HALF_LINE = """
import resource, sys
from runtime.process.logs.stream_writer import StreamWriter
_, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, limit))
writer = StreamWriter(1, lambda count, error: b"")
writer.add(b"a" * 100 + b"\\n", True)
assert not writer.flush(0.2)
print("half", file=sys.stderr, flush=True)
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
assert writer.flush(5)
"""


def test_nobody_writes_behind_half_a_line_of_another_process(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as file:
        writer = StreamWriter(file.fileno(), report)
        with subprocess.Popen(
            [sys.executable, "-c", HALF_LINE], stdin=-1, stdout=file, stderr=-1, text=True
        ) as other:
            assert other.stderr is not None
            assert other.stderr.readline() == "half\n"
            writer.add(b"b\n", urgent=True)
            assert not writer.flush(0.2)
            other.communicate("\n")
            assert writer.flush(5)
    assert (tmp_path / "log").read_bytes() == b"a" * 100 + b"\nb\n"


SHARED = """
import sys
from runtime.process.logs.stream_writer import StreamWriter
writer = StreamWriter(1, lambda count, error: b"")
for number in range(100):
    writer.add(sys.argv[1].encode() * 15_000 + b"\\n", True)
assert writer.flush(30)
"""


def test_processes_that_share_a_pipe_tear_no_line(pipe: tuple[int, int]) -> None:
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)  # every line waits for the reader in its middle
    writers = [
        subprocess.Popen([sys.executable, "-c", SHARED, name], stdout=pipe[1]) for name in ("a", "b", "c")
    ]
    text = b""
    while len(text) < 3 * 100 * 15_001:
        text += os.read(pipe[0], 65_536)
    lines = text.splitlines()
    assert all(line == line[:1] * 15_000 for line in lines)
    assert [writer.wait() for writer in writers] == [0, 0, 0]


def test_a_destructor_may_log_while_its_thread_logs() -> None:
    _, end = os.pipe()  # stays open: the writer would write its last lines to another test's file
    writer = StreamWriter(end, report, capacity=50_000)

    class Logging:
        def __init__(self) -> None:
            self.cycle = self  # collected at any allocation

        def __del__(self) -> None:
            writer.add(LINE % 2, urgent=True)

    def log() -> None:
        for _ in range(20_000):
            Logging()
            writer.add(LINE % 1, urgent=True)

    thread = threading.Thread(target=log, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
