"""Commands of a pipelined connection, without a server."""

import pytest

from runtime.redis.pipeline import PipelinedConnection


async def test_a_command_that_cannot_be_packed_takes_no_other_ones_reply() -> None:
    connection = PipelinedConnection(timeout=1.0, max_wait=0.0)
    with pytest.raises(TypeError):
        connection.send(("GET", object()))  # type: ignore[arg-type]
    assert not connection._pending
    assert not connection._output


class Written:
    """The transport of a connection that Redis does not answer by itself."""

    def write(self, data: bytes) -> None:
        pass


async def test_replies_go_to_their_commands_however_they_arrive() -> None:
    connection = PipelinedConnection(timeout=60.0, max_wait=0.0)
    connection.connection_made(Written())  # type: ignore[arg-type]
    first = connection.send(("GET", "a"))
    several = connection.send_all([("GET", "b"), ("GET", "c"), ("GET", "d")])
    cancelled = connection.send_all([("GET", "e"), ("GET", "f")])
    last = connection.send(("GET", "g"))
    cancelled.cancel()
    replies = b"".join(b"$1\r\n%c\r\n" % byte for byte in b"1234567")
    for start in range(len(replies)):
        connection.data_received(replies[start : start + 1])
    assert (await first, await several, await last) == (b"1", [b"2", b"3", b"4"], b"7")


async def test_a_lost_connection_is_the_result_of_what_is_pending() -> None:
    connection = PipelinedConnection(timeout=60.0, max_wait=0.0)
    connection.connection_made(Written())  # type: ignore[arg-type]
    several, one = connection.send_all([("GET", "a"), ("GET", "b")]), connection.send(("GET", "c"))
    connection.data_received(b"$1\r\n1\r\n")
    connection.connection_lost(None)
    later = connection.send_all([("GET", "d")])
    assert [type(await reply) for reply in (several, one, later)] == [ConnectionError] * 3
