"""The owner that a request names, compared with its caller."""

from collections.abc import Awaitable

from runtime.grpc import caller
from runtime.grpc.method import Context, Handler, Method
from runtime.grpc.rpc_error import RpcError


def check_owner(method: Method, handler: Handler) -> Handler:
    """Refuse requests that name another owner than the caller, unless the caller reaches all objects."""
    rule = method.rule
    if not rule.is_in_request:
        return handler

    def check_then_handle(request: object, context: Context) -> Awaitable[object]:
        owners = rule.find_owners(caller.current())
        if owners is not None and getattr(request, rule.owner) not in owners:
            raise RpcError(
                "NOT_THE_OWNER",
                f"{rule.owner}: not the caller, who reaches others only with the scope {rule.all}",
                {"field": rule.owner, "scope": rule.all, "method": method.path},
            )
        return handler(request, context)

    return check_then_handle
