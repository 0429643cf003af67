"""Every test of the edge runs on both servers, since they promise the same."""

from collections.abc import Iterator

import pytest


@pytest.fixture(params=["grpc.aio", "h2corn"], scope="module", autouse=True)
def grpc_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set the server that takes the calls; yield its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIPTYCH_GRPC_SERVER", request.param)
        yield str(request.param)
