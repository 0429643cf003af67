"""A server with one of its parts left out, to tell what that part costs.

Run as `python -m bench.variants PART MODULE`: `validation` takes requests as they are, `jwt` takes every
caller for one who may do anything.
"""

import runpy
import sys

from runtime.grpc import authentication, caller, validation
from runtime.grpc.caller import Caller
from runtime.grpc.method import Context, Handler, Interceptor, Method


def unchecked(method: Method, handler: Handler) -> Handler:
    """Decode requests, and do nothing else."""
    decode = method.request.FromString

    async def decoded(request: bytes, context: Context) -> object:
        return await handler(decode(request), context)

    return decoded


def anybody(_tokens: object) -> Interceptor:
    """Let everybody in."""
    who = Caller("anybody", frozenset())

    def entering(_method: Method, handler: Handler) -> Handler:
        async def entered(request: object, context: Context) -> object:
            caller.set_current(who)
            return await handler(request, context)

        return entered

    return entering


if __name__ == "__main__":
    _, part, module, *arguments = sys.argv
    if part == "validation":
        validation.validate = unchecked
    else:
        authentication.authenticate = anybody  # type: ignore[assignment]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
