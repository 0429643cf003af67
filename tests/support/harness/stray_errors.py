"""Finds errors of tasks and futures that nobody has read."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def no_stray_errors() -> Iterator[None]:
    """Fail if asyncio reports an error inside, for instance "Task exception was never retrieved"."""
    stray: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    previous = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: stray.append(context))
    try:
        yield
        gc.collect()
    finally:
        loop.set_exception_handler(previous)
    assert not stray
