"""Writes log lines to a stream that may be slow, full, broken or read by nobody.

How it works. `add` puts a line into a queue, and drops it if the queue holds CAPACITY bytes. One thread takes
lines and writes them in batches: a write for each line would cost a busy server a tenth of its time. The
thread waits for a line, then DELAY for further ones; an urgent line ends that delay. Only this thread ever
waits for the stream or sees its errors.

- A write that fails is repeated, from the first byte that the stream has not taken, so that no line is torn.
- Workers share a stream. A lock on it, which the kernel releases if its holder dies, is held during a write
  and while the stream ends within a line.
- Once the stream takes lines again, a line reports how many were dropped.
"""

import atexit
import errno
import fcntl
import os
import select
import stat
from _thread import allocate_lock
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import sleep
from typing import BinaryIO

CAPACITY = 8 * 2**20
"""Bytes of the lines that wait. A thousand commands a second log a megabyte."""
BATCH = 64 * 1024
"""Bytes of a write, the size of a pipe."""
DELAY = 0.02
"""Seconds that a line waits for further lines. A killed process can lose the lines of this time."""
FLUSH_TIMEOUT = 1.0
"""Seconds that a process that ends waits until its stream has taken the last lines."""
RETRY_PAUSE = 0.25
"""Seconds before a failed write is repeated."""
REPORT_DISTANCE = 4
"""Written between two reports of dropped lines while the stream is too slow, in multiples of CAPACITY."""

ReportLoss = Callable[[int, str], bytes]
"""Returns a line from the number of dropped lines and the last error of the stream."""


class FileWriter:
    """Writes every line at once, for command lines and tests. Errors are ignored."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, line: bytes, _urgent: bool) -> None:
        with suppress(Exception):  # a log line never raises, and there is nowhere else to report it
            self._file.write(line)
            self._file.flush()

    def flush(self, _seconds: float) -> bool:
        return True


class StreamWriter:
    """Writes lines to a file descriptor in a thread of its own.

    Args:
        descriptor: the stream, which stays open.
        report_loss: renders the line about dropped lines.
        capacity: bytes of the lines that may wait.
    """

    def __init__(self, descriptor: int, report_loss: ReportLoss, capacity: int = CAPACITY) -> None:
        self._descriptor = descriptor
        self._report_loss = report_loss
        self._capacity = capacity
        # `put` of a SimpleQueue and `release` of a lock are safe in destructors, which may log while this
        # thread logs; `threading`'s own classes would deadlock there.
        self._queue: SimpleQueue[bytes | Event] = SimpleQueue()
        self._urgent = allocate_lock()
        self._urgent.acquire()
        self._waiting_bytes = 0
        self._dropped = self._reported = 0
        self._written_since_loss = 0
        self._error = ""
        self._shared = _is_lockable(descriptor)
        os.register_at_fork(after_in_child=self._start)
        atexit.register(self.flush, FLUSH_TIMEOUT)
        self._start()

    def add(self, line: bytes, urgent: bool) -> None:
        if self._waiting_bytes >= self._capacity:
            self._dropped += 1
            return
        self._waiting_bytes += len(line)
        self._queue.put(line)
        if urgent:
            self._end_delay()

    def flush(self, seconds: float) -> bool:
        written = Event()
        self._queue.put(written)
        self._end_delay()
        return written.wait(seconds)

    def _end_delay(self) -> None:
        try:
            self._urgent.release()
        except RuntimeError:  # the delay has been ended already
            return

    def _start(self) -> None:
        Thread(target=self._run, name="log writer", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._write_batch()
            except Exception as error:  # for instance a MemoryError: this thread must not end
                self._error = repr(error)
                sleep(RETRY_PAUSE)

    def _write_batch(self) -> None:
        item = self._queue.get()
        if self._waiting_bytes < BATCH:
            self._urgent.acquire(timeout=DELAY)
        lines, flushes, size = list[bytes](), list[Event](), 0
        while True:
            if isinstance(item, bytes):
                lines.append(item)
                size += len(item)
            else:
                flushes.append(item)
            if size >= BATCH:
                break
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
        self._write(b"".join(lines))
        # Additions of other threads can get lost, so the count begins again whenever the queue is empty.
        self._waiting_bytes = 0 if self._queue.empty() else self._waiting_bytes - size
        self._write_report(size)
        for written in flushes:
            written.set()

    def _write_report(self, size: int) -> None:
        """Report lost lines, if there are any and the last batch, of this size, has emptied the queue."""
        count = self._dropped - self._reported
        self._written_since_loss = self._written_since_loss + size if count else 0
        if count and (self._queue.empty() or self._written_since_loss > REPORT_DISTANCE * self._capacity):
            self._write(self._report_loss(count, self._error))
            self._reported += count
            self._written_since_loss, self._error = 0, ""

    def _write(self, data: bytes) -> None:
        """Write everything, however long that takes."""
        rest = memoryview(data)
        while rest:
            self._lock(fcntl.LOCK_EX)
            try:
                while rest:
                    rest = rest[self._write_some(rest) :]
            except OSError as error:
                self._error = f"{errno.errorcode.get(error.errno or 0, '')}: {error.strerror}"
                within_line = len(rest) < len(data) and data[-len(rest) - 1] != ord("\n")
                if not within_line:
                    self._lock(fcntl.LOCK_UN)
                sleep(RETRY_PAUSE)
        self._lock(fcntl.LOCK_UN)

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # somebody has made the stream non-blocking
            self._error = "EAGAIN: nobody reads the stream"
            poll = select.poll()
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll(RETRY_PAUSE * 1000)
            return 0

    def _lock(self, operation: int) -> None:
        """Lock or unlock the stream for other processes, as far as it can be locked."""
        if self._shared:
            try:
                fcntl.lockf(self._descriptor, operation)
            except OSError:
                self._shared = False


def _is_lockable(descriptor: int) -> bool:
    """Return whether a stream can be shared with other processes and locked: a file or a pipe."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)
