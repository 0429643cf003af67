"""Every test of the edge runs on both servers, since they promise the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

SLOW = {"test_process.py", "test_process_output.py", "test_telemetry.py"}
"""Files about processes rather than calls: on h2corn they run with the long tests."""


@pytest.fixture(params=["grpc.aio", "h2corn"], scope="module", autouse=True)
def grpc_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set the server that takes the calls; yield its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIPTYCH_GRPC_SERVER", request.param)
        yield str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        is_slow = item.path.parent == Path(__file__).parent and item.path.name in SLOW
        if is_slow and callspec and callspec.params.get("grpc_server") == "h2corn":
            item.add_marker(pytest.mark.long)
