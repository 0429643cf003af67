"""The private methods of grpc.aio that `runtime.grpc.aio.server` overrides or calls still exist.

grpcio promises nothing about them. When an upgrade changes one, adapt `_CallIntake`, then this file.
"""

import inspect
from typing import Any

import pytest
from grpc._cython import cygrpc
from grpc.aio import _server

from runtime.grpc.aio.server import Server, _CallIntake

OVERRIDDEN = ("add_generic_rpc_handlers", "add_registered_method_handlers", "_make_request_call_future")
CALLED: dict[str, tuple[Any, ...]] = {
    "_request_call": (),
    "_request_registered_call": (b"/a/b",),
    "is_running": (),
}
"""The methods that the overrides call, with arguments as in those calls."""


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_overridden_method_has_the_parameters_of_grpcio(name: str) -> None:
    theirs = inspect.signature(getattr(cygrpc.AioServer, name)).parameters
    ours = inspect.signature(getattr(_CallIntake, name)).parameters
    assert len(theirs) == len(ours)
    assert inspect.iscoroutinefunction(getattr(cygrpc.AioServer, name)) is False


@pytest.mark.parametrize("name", CALLED)
def test_a_called_method_takes_the_arguments_of_our_calls(name: str) -> None:
    inspect.signature(getattr(cygrpc.AioServer, name)).bind(None, *CALLED[name])


def test_the_functions_in_use_take_the_arguments_of_our_calls() -> None:
    inspect.signature(cygrpc._handle_rpc).bind("method", None, (), None, None, False)
    inspect.signature(cygrpc._schedule_rpc_coro).bind(None, None, None, "method")
    cygrpc._MethodResolver([], {})
    assert issubclass(cygrpc._RequestCallError, Exception)
    assert issubclass(cygrpc.ExecuteBatchError, Exception)


async def test_a_server_has_the_attributes_that_grpcio_sets() -> None:
    theirs = _server.Server(None, (), (), (), None, None)
    assert vars(Server(())).keys() == vars(theirs).keys()
