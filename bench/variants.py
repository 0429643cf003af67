"""Runs a server without one of its parts, to measure the cost of that part.

Run as `python -m bench.variants PART MODULE`. `validation` accepts requests without validating them; `jwt`
accepts every call without reading its token.
"""

import runpy
import sys

from runtime.grpc import authentication, caller, validation
from runtime.grpc.caller import Caller
from runtime.grpc.method import Context, Handler, Interceptor, Method


def skip_validation(method: Method, handler: Handler) -> Handler:
    """Decode requests without validating them."""
    decode = method.request.FromString

    async def handle(request: bytes, context: Context) -> object:
        return await handler(decode(request), context)

    return handle


def skip_identification(_tokens: object) -> Interceptor:
    """Set the same caller for every call."""
    anonymous = Caller("anybody", frozenset({"ordering.all"}))

    def intercept(_method: Method, handler: Handler) -> Handler:
        async def handle(request: object, context: Context) -> object:
            caller.set_current(anonymous)
            return await handler(request, context)

        return handle

    return intercept


def skip_admission(_streams: object) -> Interceptor:
    """Admit every call."""
    return lambda _method, handler: handler


if __name__ == "__main__":
    _, part, module, *arguments = sys.argv
    if part == "validation":
        validation.validate = skip_validation
    else:
        authentication.identify = skip_identification  # type: ignore[assignment]
        authentication.admit = skip_admission  # type: ignore[assignment]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
