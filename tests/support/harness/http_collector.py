"""A collector that takes OTLP over HTTP, made of the standard library's server, with faults on request."""

import asyncio
import gzip
import ssl
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from tempfile import NamedTemporaryFile
from threading import Event, Thread
from typing import Any

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs_service
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service

from tests.support.harness.collector import Collector

REQUESTS: dict[str, Any] = {
    "traces": trace_service.ExportTraceServiceRequest,
    "metrics": metrics_service.ExportMetricsServiceRequest,
    "logs": logs_service.ExportLogsServiceRequest,
}


class HttpCollector(Collector):
    """A collector on a free port. `hangs` may change at any time."""

    def __init__(self, prefix: str = "/v1") -> None:
        super().__init__()
        self.prefix = prefix
        self.status = 200
        """The status of its answers; it keeps nothing that it answers with another one."""
        self.paths: list[str] = []
        self.released = Event()
        """Ends the calls that hang."""
        self._loop = asyncio.get_running_loop()

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}

    async def start(self, certificate: bytes = b"") -> None:
        handler = type("Handler", (_Handler,), {"collector": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", self.port), handler)
        if certificate:
            self._http.socket = create_tls(certificate).wrap_socket(self._http.socket, server_side=True)
        self.port = self._http.server_address[1]
        Thread(target=self._http.serve_forever, daemon=True).start()

    async def stop(self) -> None:
        self.released.set()
        await asyncio.to_thread(self._http.shutdown)
        self._http.server_close()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> int:
        """Take an export in a thread of the server; return the status of the answer."""
        self.calls += 1
        self.paths.append(path)
        self.headers.append(headers)
        if self.hangs:
            self.released.wait()
        signal = path.removeprefix(f"{self.prefix}/")
        if signal not in REQUESTS:
            return 404
        if self.status != 200:
            return self.status
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = REQUESTS[signal].FromString(body)
        self._loop.call_soon_threadsafe(getattr(self, f"add_{signal}"), request)
        return 200


def create_tls(certificate: bytes) -> ssl.SSLContext:
    """Return a context for servers that trust their own certificate alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with NamedTemporaryFile() as file:
        file.write(certificate)
        file.flush()
        context.load_cert_chain(file.name)
    context.load_verify_locations(cadata=certificate.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class _Handler(BaseHTTPRequestHandler):
    collector: HttpCollector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(self.collector.take(self.path, headers, body))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Print nothing."""
