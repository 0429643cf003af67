"""A saga whose every reaction is checked: it is pure, and its state survives the database."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import msgspec

from process_manager.dispatch.step_requests import method_of
from process_manager.saga import Input, Reaction, Saga
from runtime.grpc.access import scopes_of
from runtime.process.start_error import StartError


def check_saga(saga: Saga[Any]) -> Saga[Any]:
    """Return the saga with checks: `react` raises AssertionError for a reaction that the engine would regret.

    Raises:
        AssertionError: no service takes a declared request, or its method has no access rule.
    """
    for request in saga.requests:
        try:
            scopes_of(method_of(request))
        except (LookupError, StartError) as error:
            raise AssertionError(f"{saga.name}: {error}") from error
    _check_stored(saga, saga.initial)

    def react(state: Any, input_: Input) -> Reaction[Any]:
        stored, same_input = _encode(state), deepcopy(input_)
        reaction = saga.react(state, input_)
        assert _encode(state) == stored, f"{saga.name}: react changed the state that it was given"
        assert input_ == same_input, f"{saga.name}: react changed its input"
        _check_stored(saga, reaction.state)
        again = saga.react(_decode(saga, stored), same_input)
        assert _describe(reaction) == _describe(again), f"{saga.name}: react is not pure: {input_}"
        return reaction

    return replace(saga, react=react)


def _check_stored(saga: Saga[Any], state: Any) -> None:
    """Assert that a state is the same after it was stored as JSON."""
    try:
        stored = _encode(state)
        assert _decode(saga, stored) == state, f"{saga.name}: JSON changes the state {state}"
    except (TypeError, ValueError) as error:  # msgspec's errors are subclasses
        raise AssertionError(f"{saga.name}: the state cannot be stored as JSON: {error}") from error
    assert b"\\u0000" not in stored, f"{saga.name}: the state holds U+0000, which PostgreSQL cannot store"


def _encode(state: Any) -> bytes:
    return msgspec.json.encode(msgspec.to_builtins(state))


def _decode(saga: Saga[Any], stored: bytes) -> Any:
    return msgspec.convert(msgspec.json.decode(stored), type(saga.initial))


def _describe(reaction: Reaction[Any]) -> tuple[object, ...]:
    sent = [
        (send.step, type(send.request), send.request.SerializeToString(deterministic=True))
        for send in reaction.send
    ]
    return reaction.state, sent, list(reaction.timers)
