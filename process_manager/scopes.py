"""The scopes that the process manager's access token needs, derived from the requests of its sagas."""

from collections.abc import Iterable
from typing import Any

from process_manager.dispatch.step_requests import method_of
from process_manager.saga import Saga
from runtime.grpc.access import scope_of


def required_scopes(sagas: Iterable[Saga[Any]]) -> tuple[str, ...]:
    """Return the scopes of all methods that these sagas may call, sorted.

    Raises:
        StartError: a method has no access rule.
    """
    return tuple(sorted({scope_of(method_of(request)) for saga in sagas for request in saga.requests}))
