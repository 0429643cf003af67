"""Options and credentials of a connection's channel, the same for grpc and grpc.aio."""

import json
from collections.abc import Sequence
from typing import Any

import grpc

Options = Sequence[tuple[str, Any]]
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{"name": [{}], "waitForReady": True}],
}
"""For all methods of all services; timeouts and retries are the connection's own."""


def build_options(target: str, options: Options) -> list[tuple[str, Any]]:
    """Return the options of a channel to a target; the caller's own come last and win."""
    return [
        *_build_authority(target),
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        # The connection repeats calls itself, because gRPC's retries ignore RetryInfo and any budget across
        # calls. Only one layer may retry: two would multiply their attempts.
        ("grpc.enable_retries", 0),
        # Servers permit a ping every 10 seconds, even between calls.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # gRPC's own maximum of two minutes would outlast the deadlines of most calls after an outage.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        *options,
    ]


def _build_authority(target: str) -> Options:
    # Of several addresses gRPC would send all as the authority of a call, which HTTP/2 servers refuse.
    address, comma, _ = target.partition(",")
    return [("grpc.default_authority", address.removeprefix("ipv4:").removeprefix("ipv6:"))] if comma else []


def find_credentials(tls: grpc.ChannelCredentials | bool) -> grpc.ChannelCredentials | None:
    """Return the credentials of a channel; None for plaintext."""
    if isinstance(tls, bool):
        return grpc.ssl_channel_credentials() if tls else None
    return tls
