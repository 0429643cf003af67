"""The client of nats-py, with less work for each message.

How it works. It overrides private methods of nats-py that took most of the time per event. A received
message goes straight to a callback, without a queue and a task; headers are written and parsed in fewer
steps. The override of `_init_request_sub` corrects an error, that of
`_process_info` makes TLS binding. `tests/unit/runtime/test_nats_client.py` fails
when nats-py changes these methods.
"""

import ssl
from collections.abc import Callable, Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client

from runtime.tls.store_context import StoreContext

Receive = Callable[[str, str, bytes, Mapping[str, str]], None]
"""Called with a message's subject, reply subject, data and headers."""


class NatsClient(Client):
    """The client of nats-py with faster headers, and with callbacks in place of queues and tasks."""

    def __init__(self, tls: StoreContext | None = None) -> None:
        super().__init__()
        self._tls = tls
        self.receivers: dict[int, Receive] = {}
        """Callbacks by subscription id. Subscriptions without one use the queue of nats-py."""

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The context of the next connection; the certificates in its files may have changed."""
        return super().ssl_context if self._tls is None else self._tls.get()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        receive = self.receivers.get(sid)
        if receive is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            receive(subject.decode(), reply.decode(), data, await self._process_headers(headers) or {})

    async def _send_publish(
        self, subject: str, reply: str, payload: bytes, payload_size: int, headers: dict[str, Any] | None
    ) -> None:
        lines = [f"{name}: {value}\r\n" for name, value in (headers or {}).items()]
        block = f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()
        if not headers or block.count(b"\n") != len(lines) + 2 or block.count(b"\r") != len(lines) + 2:
            # No headers, or a line break in a header, which nats-py sanitises.
            await super()._send_publish(subject, reply, payload, payload_size, headers)
            return
        sizes = f"{len(block)} {len(block) + payload_size}\r\n"
        await self._send_command(
            b"".join((f"HPUB {subject} {reply} {sizes}".encode(), block, payload, b"\r\n"))
        )
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _init_request_sub(self) -> None:
        try:
            await super()._init_request_sub()
        except nats.errors.Error:
            # nats-py names the inbox of all replies before it subscribes to it. A request between two
            # connections would leave the name behind, and no later request would get its reply.
            self._resp_sub_prefix = None
            raise

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # The first message comes in the clear, perhaps from somebody in between. Without `tls_required` in it
        # nats-py would go on in the clear, and send its password.
        server = self._current_server
        if initial_connection and server and server.uri.scheme == "tls" and not info.get("tls_required"):
            raise nats.errors.Error("nats: the URL says tls, and the server does not offer it")
        await super()._process_info(info, initial_connection)

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        lines = raw.decode("utf-8", "replace").split("\r\n")
        try:
            return dict([line.split(": ", 1) for line in lines if line])
        except ValueError:  # a foreign client wrote a line without the usual space after the colon
            parts = [line.partition(":") for line in lines]
            return {name: value.strip() for name, colon, value in parts if colon}
