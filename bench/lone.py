"""Lone callers: one call in flight, on a kept connection, so that a call's time is its caller's wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from bench.comparison import Sample, Subject
from bench.environment import Environment, get_pid
from bench.served_method import ServedMethod, open_methods
from bench.services import GET, run_call_echo

CALLS = 1_000
"""Calls per run of the complete bench."""
ECHO = "a lone caller's echo of GetOrder"


def name_lone(method: str) -> str:
    """Return the name of the subject of a method's lone caller."""
    return f"a lone caller's {method}"


@asynccontextmanager
async def open_subjects(environment: Environment) -> AsyncIterator[list[Subject]]:
    """Yield the echo, and each method on each server."""
    calls = environment.plan.scale(CALLS)

    async def call(method: ServedMethod) -> Sample:
        return await environment.measure(
            method.process.address,
            method.path,
            method.requests_file,
            calls,
            processes={method.process.name: get_pid(method.process)},
            events=method.events,
            in_flight=1,
        )

    async with run_call_echo(environment) as (echo, process), open_methods(environment) as methods:

        async def call_echo() -> Sample:
            file = methods[0].requests_file
            return await environment.measure(echo, GET, file, calls, processes=process, in_flight=1)

        yield [
            Subject(ECHO, call_echo),
            *(Subject(name_lone(method.name), partial(call, method)) for method in methods),
        ]
