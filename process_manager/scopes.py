"""The scopes that the process manager's access token needs, derived from the requests of its sagas."""

from collections.abc import Iterable
from typing import Any

from process_manager.dispatch.step_requests import method_of
from process_manager.saga import Saga
from runtime.grpc.access import scopes_of


def required_scopes(sagas: Iterable[Saga[Any]]) -> tuple[str, ...]:
    """Return the scopes with which these sagas may call their methods on every object, sorted.

    Raises:
        StartError: a method has no access rule.
    """
    methods = [method_of(request) for saga in sagas for request in saga.requests]
    return tuple(sorted({scope for method in methods for scope in scopes_of(method)}))
