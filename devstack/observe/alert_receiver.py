"""A webhook on this machine that receives Alertmanager's alerts."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass(frozen=True)
class Alert:
    """An alert as Alertmanager reports it: it fires, or has ended."""

    name: str
    firing: bool
    labels: dict[str, str]
    annotations: dict[str, str]

    def __str__(self) -> str:
        state = "ALERT" if self.firing else "ended"
        page = f" ({self.annotations['runbook_url']})" if self.firing else ""
        return f"{state} {self.name}: {self.annotations.get('summary', '')}{page}"


class AlertReceiver:
    """A webhook that calls a function with each alert, in a thread of its own.

    Args:
        receive: called with each alert.
        port: its listening port; 0 for a free one.
    """

    def __init__(self, receive: Callable[[Alert], None], port: int = 0) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.end_headers()
                for alert in parse_alerts(body):
                    receive(alert)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/"

    def start(self) -> None:
        Thread(target=self._server.serve_forever, name="alert receiver", daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def parse_alerts(body: bytes) -> list[Alert]:
    """Return the alerts of a notification."""
    return [
        Alert(
            alert["labels"]["alertname"], alert["status"] == "firing", alert["labels"], alert["annotations"]
        )
        for alert in json.loads(body)["alerts"]
    ]
