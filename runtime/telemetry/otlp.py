"""The OTLP exporters of the SDK, set up by `OTEL_EXPORTER_OTLP_*`.

Every variable exists for all signals and for one, for instance OTEL_EXPORTER_OTLP_TIMEOUT and
OTEL_EXPORTER_OTLP_LOGS_TIMEOUT; the one for the signal takes precedence. They are read here rather than by
the SDK, because it ignores malformed values and missing files, and reads numbers of milliseconds as seconds.
"""

import importlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import grpc

from runtime.process.start_error import InvalidSetting
from runtime.telemetry.reported_exporter import ReportedExporter
from runtime.telemetry.variables import read_boolean, read_choice, read_number, read_pairs, read_text

Signal = Literal["traces", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")

TIMEOUT = 10_000
"""Milliseconds of an export, the default of the specification."""

_PACKAGES = {"grpc": "grpc", "http/protobuf": "http"}
_CLASSES: Mapping[Signal, tuple[str, str]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_DEFAULT_ENDPOINTS = {"grpc": "http://localhost:4317", "http/protobuf": "http://localhost:4318"}


@dataclass(frozen=True)
class OtlpSettings:
    """The settings of one signal's exporter."""

    signal: Signal
    protocol: str
    endpoint: str
    """A URL; for gRPC also `host:port`."""
    insecure: bool
    headers: Mapping[str, str]
    timeout: float
    """Seconds of an export, its repetitions included."""
    gzip: bool
    certificate: str
    """Files; empty for none."""
    client_key: str
    client_certificate: str


def read_otlp_settings(signal: Signal, max_timeout: int) -> OtlpSettings:
    """Return the settings of a signal's exporter.

    Args:
        signal: the signal.
        max_timeout: milliseconds that the processor of this signal allows for an export.

    Raises:
        InvalidSetting: a variable is malformed or not supported, or names a file that cannot be read.
    """
    protocol = read_choice(*_names(signal, "PROTOCOL"), choices=tuple(_PACKAGES), default="grpc")
    endpoint = _read_endpoint(signal, protocol)
    settings = OtlpSettings(
        signal,
        protocol,
        endpoint,
        insecure=_is_insecure(signal, endpoint),
        headers=read_pairs(*_names(signal, "HEADERS"), headers=True),
        timeout=min(read_number(*_names(signal, "TIMEOUT"), default=TIMEOUT), max_timeout) / 1000,
        gzip=read_choice(*_names(signal, "COMPRESSION"), choices=("gzip", "none"), default="none") == "gzip",
        certificate=_read_file(*_names(signal, "CERTIFICATE")),
        client_key=_read_file(*_names(signal, "CLIENT_KEY")),
        client_certificate=_read_file(*_names(signal, "CLIENT_CERTIFICATE")),
    )
    _check_certificates(settings)
    return settings


def _check_certificates(settings: OtlpSettings) -> None:
    """Load the files as an export does, whose errors do not name the file."""
    key, certificate = settings.client_key, settings.client_certificate
    if bool(key) != bool(certificate):
        missing = _names(settings.signal, "CLIENT_CERTIFICATE" if key else "CLIENT_KEY")[1]
        raise InvalidSetting(f"{missing}: is missing; a client needs its key and certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    part = "CERTIFICATE"
    try:
        if settings.certificate:
            context.load_verify_locations(settings.certificate)
        if certificate:
            part = "CLIENT_CERTIFICATE"
            context.load_cert_chain(certificate, key, password="")  # never ask for one
    except (ssl.SSLError, ValueError) as error:
        name, path = read_text(*_names(settings.signal, part))
        raise InvalidSetting(f"{name}: {path} cannot be used: {error}") from error


def _names(signal: Signal, name: str) -> tuple[str, str]:
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", f"OTEL_EXPORTER_OTLP_{name}"


def _read_endpoint(signal: Signal, protocol: str) -> str:
    own, general = _names(signal, "ENDPOINT")
    name, value = read_text(own, general)
    endpoint = value or _DEFAULT_ENDPOINTS[protocol]
    is_grpc = protocol == "grpc"
    try:
        parts = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}")
        valid = bool(parts.hostname) and parts.port != 0 and endpoint.isprintable() and " " not in endpoint
    except ValueError:
        valid = False
    schemes = ("http", "https", "") if is_grpc else ("http", "https")
    if not valid or parts.scheme not in schemes or (not parts.scheme and parts.port is None):
        form = "http(s)://host:port or host:port" if is_grpc else "http(s)://host:port"
        raise InvalidSetting(f"{name}: is not {form}")
    if is_grpc and (parts.path not in ("", "/") or parts.query):
        raise InvalidSetting(f"{name}: has a path, which gRPC does not use (OTEL_EXPORTER_OTLP_PROTOCOL)")
    if not is_grpc and name != own:
        endpoint = f"{endpoint.removesuffix('/')}/v1/{signal}"
    return endpoint


def _is_insecure(signal: Signal, endpoint: str) -> bool:
    """Return whether gRPC uses no TLS, by the scheme, or without one by OTEL_EXPORTER_OTLP_INSECURE."""
    if "://" in endpoint:
        return endpoint.startswith("http://")
    return read_boolean(*_names(signal, "INSECURE"))


def _read_file(*names: str) -> str:
    """Return the path of a file, after reading it once."""
    name, path = read_text(*names)
    if path:
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise InvalidSetting(f"{name}: cannot read {path}: {error.strerror}") from error
    return path


def create_exporter(settings: OtlpSettings, **options: Any) -> Any:
    """Return the SDK's exporter of a signal, which reports its failures.

    Args:
        settings: of the exporter.
        options: further arguments, for instance `preferred_temporality`.

    Raises:
        InvalidSetting: the package with the protocol is not installed.
    """
    module, name = _CLASSES[settings.signal]
    package = f"opentelemetry.exporter.otlp.proto.{_PACKAGES[settings.protocol]}"
    try:
        create = getattr(importlib.import_module(f"{package}.{module}"), name)
    except ImportError as error:
        variable = read_text(*_names(settings.signal, "PROTOCOL"))[0]
        raise InvalidSetting(f"{variable}={settings.protocol}: needs the extra diptych[otlp-http]") from error
    connection = _grpc_options(settings) if settings.protocol == "grpc" else _http_options(settings)
    exporter = create(endpoint=settings.endpoint, timeout=settings.timeout, **connection, **options)
    return ReportedExporter(exporter, settings.signal, settings.endpoint.rpartition("@")[2])


def _grpc_options(settings: OtlpSettings) -> dict[str, Any]:
    credentials = None
    if not settings.insecure:
        files = (settings.certificate, settings.client_key, settings.client_certificate)
        root, key, chain = (Path(path).read_bytes() if path else None for path in files)
        credentials = grpc.ssl_channel_credentials(root, key, chain)
    return {
        "insecure": settings.insecure,
        "credentials": credentials,
        "headers": tuple((name.lower(), value) for name, value in settings.headers.items()),
        "compression": grpc.Compression.Gzip if settings.gzip else grpc.Compression.NoCompression,
    }


def _http_options(settings: OtlpSettings) -> dict[str, Any]:
    from opentelemetry.exporter.otlp.proto.http import Compression  # an extra

    from runtime.telemetry.otlp_session import OtlpSession

    return {
        "session": OtlpSession(),
        "certificate_file": settings.certificate or None,
        "client_key_file": settings.client_key or None,
        "client_certificate_file": settings.client_certificate or None,
        "headers": settings.headers,
        "compression": Compression.Gzip if settings.gzip else Compression.NoCompression,
    }
