"""The HTTP session of an OTLP exporter; imported only with the extra `otlp-http`."""

from typing import Any

import requests


class OtlpSession(requests.Session):
    """A session that trusts the certificates of OTEL_EXPORTER_OTLP_CERTIFICATE.

    Variables for other programs, such as REQUESTS_CA_BUNDLE, would take precedence over it.
    """

    def merge_environment_settings(
        self, url: str, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> dict[str, Any]:
        merged: dict[str, Any] = super().merge_environment_settings(url, proxies, stream, verify, cert)
        return {**merged, "verify": self.verify} if isinstance(self.verify, str) else merged
