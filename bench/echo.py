"""The ceiling: a grpc.aio server that answers a method's recorded response, whatever it is asked.

Run as `python -m bench.echo ADDRESS METHOD=FILE...`, each file holding a serialised response.
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import uvloop

STALENESS = (("diptych-staleness-ms", "12"),)
"""What the query server says in trailing metadata."""


def responder(response: bytes) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """Return a handler that does nothing but answer."""

    async def respond(_request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(STALENESS)
        return response

    return respond


async def serve(address: str, responses: dict[str, bytes]) -> None:
    """Answer calls of these methods (paths) for ever; requests and responses pass as bytes."""
    server = grpc.aio.server()
    for path, response in responses.items():
        _, service, method = path.split("/")
        handlers: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(responder(response))}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    files = dict(argument.split("=") for argument in sys.argv[2:])
    uvloop.run(serve(sys.argv[1], {path: Path(file).read_bytes() for path, file in files.items()}))
