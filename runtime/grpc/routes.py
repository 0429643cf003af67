"""The routes of a server: method names to handlers, each wrapped once in the interceptors."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.descriptor import ServiceDescriptor

from runtime.grpc import errors, metadata
from runtime.grpc.metadata import Metadata
from runtime.grpc.method import Context, Handler, Interceptor, Method
from runtime.grpc.rpc_error import RpcError
from runtime.process.start_error import StartError

_RETRY_AFTER = 1.0
"""Seconds after which clients may reach another server, or this one's successor."""


@dataclass(frozen=True, slots=True)
class Service:
    """A service and the handlers of its methods, by method name.

    A handler (see `runtime.grpc.method.Handler`) raises `RpcError` to end a call with an error.
    """

    descriptor: ServiceDescriptor
    handlers: Mapping[str, Handler]
    compares_owners: Collection[str] = ()
    """The methods whose handlers compare the owner with the caller where only the object knows it. Calls of
    other such methods need the scope that reaches all objects."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """What handles a call: takes the bytes of its request."""

    handler: Handler
    streams: bool = False
    """Whether the handler writes its responses to the context."""
    is_rejection: bool = False
    """Whether every call is rejected, so that nobody needs its request: the handler takes None instead."""


class Routes:
    """The routes of all methods. Calls of unknown methods are rejected, and after `reject_all` all calls."""

    def __init__(
        self,
        services: Sequence[Service],
        interceptors: Sequence[Interceptor],
        on_unknown: Callable[[Context], Awaitable[None]],
    ) -> None:
        """Wrap the handlers in the interceptors, the first being the outermost.

        Args:
            services: the services.
            interceptors: of all methods.
            on_unknown: called before a call of an unknown method is answered.

        Raises:
            StartError: a method has no access rule or no handler, or a handler has no method.
        """
        self._routes: dict[str, Route] = {}
        error = RpcError("METHOD_UNKNOWN", "this server has no such method")
        self._unknown = _create_rejection(error, on_unknown)
        self._rejecting: Route | None = None
        for service in services:
            _check_complete(service)
            for name, handler in service.handlers.items():
                method = Method.of(
                    service.descriptor.methods_by_name[name], compares_owner=name in service.compares_owners
                )
                for interceptor in reversed(interceptors):
                    handler = interceptor(method, handler)
                self._routes[method.path] = Route(handler, method.streams)

    @property
    def paths(self) -> Collection[str]:
        """The paths of all methods."""
        return self._routes.keys()

    @property
    def have_streams(self) -> bool:
        """Whether a method streams its responses."""
        return any(route.streams for route in self._routes.values())

    def enter(self, path: str, call_metadata: Metadata) -> Route:
        """Return the route of a call that begins in the current task, and make its metadata current."""
        metadata.set_current(call_metadata)
        return self._rejecting or self._routes.get(path, self._unknown)

    def reject_all(self) -> None:
        """Reject new calls from now on; clients repeat them elsewhere."""
        error = RpcError("STOPPING", "the server is stopping", retry_after=_RETRY_AFTER)
        self._rejecting = _create_rejection(error)


def _check_complete(service: Service) -> None:
    if mismatches := set(service.descriptor.methods_by_name).symmetric_difference(service.handlers):
        raise StartError(
            f"{service.descriptor.full_name}: methods without handlers or handlers without methods: "
            + ", ".join(sorted(mismatches))
        )


def _create_rejection(error: RpcError, before: Callable[[Context], Awaitable[None]] | None = None) -> Route:
    async def reject(_request: object, context: Context) -> None:
        if before is not None:
            await before(context)
        await errors.abort(context, error)

    return Route(reject, is_rejection=True)
