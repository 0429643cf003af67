"""The gRPC service config for callers in other languages, derived from the descriptors of the stubs.

A service that is added to the stubs is in the config without any change here.
"""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

CALL_TIMEOUT = 5.0
"""Seconds that one attempt of a command or query may take."""

_MODULES = "_service_pb2.py"
_RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.05s",
    "maxBackoff": "1s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"],
}
MAX_REQUEST_BYTES = 512 * 1024
"""Bytes above which gRPC does not send a request. Servers refuse requests above 256 KiB with a reason, but
above this size without one, and gRPC would repeat them."""
_RETRY_THROTTLING = {"maxTokens": 100, "tokenRatio": 0.2}
"""A budget for all retries of a channel: about one for every five calls that succeed, 50 at once."""


def service_config(*packages: str) -> dict[str, Any]:
    """Return the service config: round robin, a retry budget, and each method's timeout and retry policy.

    Watches have neither: they run until they are closed, and resume from a token instead of being repeated.

    Args:
        packages: Python packages of stubs whose services it names; `diptych`, all of diptych-stubs, if empty.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    services = find_services(packages or ("diptych",))
    calls = {
        "name": [{"service": service.full_name} for service in services],
        "waitForReady": True,
        "timeout": f"{CALL_TIMEOUT:g}s",
        "maxRequestMessageBytes": MAX_REQUEST_BYTES,
        "retryPolicy": deepcopy(_RETRY_POLICY),
    }
    watches = {
        "name": [
            {"service": method.containing_service.full_name, "method": method.name}
            for method in _list_watches(services)
        ],
        "waitForReady": True,
    }
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "retryThrottling": dict(_RETRY_THROTTLING),
        "methodConfig": [calls, watches],
    }


@cache
def find_services(packages: tuple[str, ...]) -> tuple[ServiceDescriptor, ...]:
    """Return the services in packages of stubs: CommandServices, then QueryServices, each by name."""
    services = [
        service
        for package in packages
        for module in _list_modules(files(package), package)
        for service in import_module(module).DESCRIPTOR.services_by_name.values()
    ]
    return tuple(sorted(services, key=lambda service: (service.name, service.full_name)))


def _list_modules(folder: Traversable, package: str) -> Iterator[str]:
    # Files, because pkgutil does not see packages without an __init__.py.
    for entry in folder.iterdir():
        if entry.name.endswith(_MODULES):
            yield f"{package}.{entry.name.removesuffix('.py')}"
        elif entry.is_dir():
            yield from _list_modules(entry, f"{package}.{entry.name}")


def _list_watches(services: tuple[ServiceDescriptor, ...]) -> Iterator[MethodDescriptor]:
    return (method for service in services for method in service.methods if method.server_streaming)
