"""The private methods of nats-py that `runtime.jetstream.nats_client` overrides or calls still exist.

nats-py promises nothing about them. When an upgrade changes one, adapt `NatsClient`, then this file.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from runtime.jetstream.nats_client import NatsClient

OVERRIDDEN = [
    name for name in vars(NatsClient) if not name.startswith("__") and callable(getattr(NatsClient, name))
]
CALLED: dict[str, tuple[Any, ...]] = {
    "_process_headers": (b"headers",),
    "_send_command": (b"command",),
    "_flush_pending": (),
}
"""The methods that the overrides call, with arguments as in those calls."""


def parameters(method: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    """Return name, kind and default of each parameter; annotations do not matter to callers."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]


def test_exactly_five_methods_are_overridden() -> None:
    assert sorted(OVERRIDDEN) == [
        *("_init_request_sub", "_parse_header_lines", "_process_info", "_process_msg", "_send_publish")
    ]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_overridden_method_has_the_signature_of_nats_py(name: str) -> None:
    theirs, ours = inspect.getattr_static(Client, name), inspect.getattr_static(NatsClient, name)
    assert type(theirs) is type(ours), "both are methods, or both static"
    theirs, ours = getattr(Client, name), getattr(NatsClient, name)
    assert parameters(theirs) == parameters(ours)
    assert inspect.iscoroutinefunction(theirs) == inspect.iscoroutinefunction(ours)


@pytest.mark.parametrize("name", CALLED)
def test_a_called_method_takes_the_arguments_of_our_calls(name: str) -> None:
    method = getattr(Client, name)
    inspect.signature(method).bind(Client(), *CALLED[name])
    assert inspect.iscoroutinefunction(method)


def test_the_attributes_in_use_exist() -> None:
    assert Client()._flush_queue is None
    assert Client()._resp_sub_prefix is None
    assert Client()._current_server is None
    assert isinstance(Client.ssl_context, property)
    assert (Client()._pending, Client()._pending_data_size, Client()._transport) == ([], 0, None)
    assert isinstance(Subscription(Client(), 7)._id, int)


def test_headers_are_parsed_as_by_nats_py() -> None:
    for raw in (b"a: 1\r\nb: 2\r\n\r\n", b"a:1\r\nb:  2 \r\n\r\n", "a: ä: ß\r\n\r\n".encode()):
        assert NatsClient._parse_header_lines(raw) == Client._parse_header_lines(raw)
