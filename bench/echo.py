"""The ceiling of gRPC: a grpc.aio server that returns one recorded response per method, without any work.

Run as `python -m bench.echo ADDRESS METHOD=FILE...`; each file contains a serialised response.
"""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import uvloop

TRAILING_METADATA = (("diptych-staleness-ms", "12"),)
"""The trailing metadata of the query server, for responses of equal size."""


def make_handler(response: bytes) -> Callable[[bytes, Any], Awaitable[bytes]]:
    async def respond(_request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata(TRAILING_METADATA)
        return response

    return respond


async def serve(address: str, responses: dict[str, bytes]) -> None:
    """Serve methods until the process ends, without parsing requests.

    Args:
        address: host:port.
        responses: the serialised response of each method path.
    """
    server = grpc.aio.server()
    for path, response in responses.items():
        _, service, method = path.split("/")
        handlers: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(make_handler(response))}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    files = dict(argument.split("=") for argument in sys.argv[2:])
    uvloop.run(serve(sys.argv[1], {path: Path(file).read_bytes() for path, file in files.items()}))
