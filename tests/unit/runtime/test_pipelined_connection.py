"""Commands of a pipelined connection, without a server."""

import pytest

from runtime.redis.pipeline import PipelinedConnection


async def test_a_command_that_cannot_be_packed_takes_no_other_ones_reply() -> None:
    connection = PipelinedConnection(timeout=1.0, max_wait=0.0)
    with pytest.raises(TypeError):
        connection.send(("GET", object()))  # type: ignore[arg-type]
    assert not connection._pending
    assert not connection._output
