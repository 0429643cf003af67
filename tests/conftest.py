"""Fixtures for all tests, and the distribution of tests over worker processes."""

import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from devstack.processes import Process
from runtime.grpc import caller
from runtime.telemetry import trace_context
from tests.support.harness.forked_process import ForkedChild
from tests.support.harness.servers import (
    database_url,
    forget_settings,
    nats_server,
    nats_url,
    own_nats,
    own_postgres,
    own_redis,
    postgres,
    redis_server,
    redis_url,
    use_memory,
)
from tests.support.harness.spreading import (
    pytest_collection_modifyitems,
    pytest_xdist_make_scheduler,
)

__all__ = [
    "database_url",
    "nats_server",
    "nats_url",
    "own_nats",
    "own_postgres",
    "own_redis",
    "postgres",
    "pytest_collection_modifyitems",
    "pytest_xdist_make_scheduler",
    "redis_server",
    "redis_url",
]

forget_settings()
use_memory()
if sys.platform == "linux":
    Process.child_type = ForkedChild
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background jobs
settings.register_profile("any_machine", deadline=None)  # a busy machine is no failure
settings.load_profile("any_machine")


@pytest.fixture(autouse=True)
def no_caller_is_left() -> Iterator[None]:
    """Later tests of the process would make their calls as that caller, or in that trace."""
    yield
    assert caller.current_or_none() is None
    assert trace_context.get_current() is None
