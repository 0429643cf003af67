"""An HTTP server that publishes the keys of a test's issuer."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.harness.callers import Issuer


class Publisher:
    """Serves the issuer's JWKS over HTTP. Tests can make it hang or fail."""

    def __init__(self, issuer: Issuer) -> None:
        publisher = self
        self.responding = threading.Event()
        """Clear it to make the server hang."""
        self.responding.set()
        self.status = 200

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.responding.wait(10)
                self.send_response(publisher.status)
                self.end_headers()
                self.wfile.write(issuer.path.read_bytes())

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.responding.set()
        self._server.shutdown()
        self._server.server_close()
