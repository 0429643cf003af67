"""The settings of telemetry: the `OTEL_*` variables, read and checked once, before anything is exported.

The names, values and defaults are those of OpenTelemetry's specification, with one exception: without an
exporter and without an endpoint nothing is exported, where the specification exports to localhost.
"""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runtime.process.start_error import InvalidSetting
from runtime.telemetry.otlp import SIGNALS, OtlpSettings, Signal, read_otlp_settings
from runtime.telemetry.variables import (
    read_boolean,
    read_choice,
    read_choices,
    read_number,
    read_pairs,
    read_ratio,
    read_text,
)

_EXPORTERS: Mapping[Signal, tuple[str, ...]] = {
    "traces": ("otlp", "console"),
    "metrics": ("otlp", "console", "prometheus"),
    "logs": ("otlp", "console"),
}
_LOG_LEVELS = {
    "": 0,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_SAMPLERS = ("always_on", "always_off", "traceidratio")
_LIMITS = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
)
_KNOWN = re.compile(
    "|".join(
        (
            "OTEL_(SDK_DISABLED|SERVICE_NAME|RESOURCE_ATTRIBUTES(_.*)?|PROPAGATORS|LOG_LEVEL)",
            "OTEL_(TRACES|METRICS|LOGS)_EXPORTER",
            "OTEL_EXPORTER_OTLP_((TRACES|METRICS|LOGS)_)?"
            "(PROTOCOL|ENDPOINT|INSECURE|HEADERS|TIMEOUT|COMPRESSION|CERTIFICATE|CLIENT_KEY|CLIENT_CERTIFICATE)",
            "OTEL_EXPORTER_OTLP_METRICS_(TEMPORALITY_PREFERENCE|DEFAULT_HISTOGRAM_AGGREGATION)",
            "OTEL_EXPORTER_PROMETHEUS_(HOST|PORT)",
            "OTEL_METRIC_EXPORT_(INTERVAL|TIMEOUT)|OTEL_METRICS_EXEMPLAR_FILTER",
            "OTEL_(BSP|BLRP)_(SCHEDULE_DELAY|EXPORT_TIMEOUT|MAX_QUEUE_SIZE|MAX_EXPORT_BATCH_SIZE)",
            "OTEL_TRACES_SAMPLER(_ARG)?",
            *_LIMITS,
        )
    )
)


@dataclass(frozen=True)
class BatchSettings:
    """The settings of a batch processor of the SDK."""

    delay: int
    """Milliseconds."""
    queue: int
    batch: int
    timeout: int
    """Milliseconds of an export."""


@dataclass(frozen=True)
class TelemetrySettings:
    """The settings of all exports."""

    exporters: Mapping[Signal, list[str]]
    otlp: Mapping[Signal, OtlpSettings]
    span_batches: BatchSettings
    log_batches: BatchSettings
    parent_based: bool
    """Whether a trace of a caller is sampled as the caller decides."""
    ratio: float
    """The ratio of traces that are sampled."""
    metric_interval: float
    """Seconds between two exports."""
    delta: bool
    """Whether counters and histograms are exported as differences."""
    exemplars: bool
    prometheus_address: str
    """`host:port` of the exporter `prometheus`."""
    sdk_log_level: int
    """The lowest level of the SDK's own log lines, a level of Python's logging; 0 for the usual one."""


def read_telemetry_settings() -> TelemetrySettings:
    """Return the settings in the environment; nothing is exported if OTEL_SDK_DISABLED is true.

    Raises:
        InvalidSetting: a variable is malformed or not supported.
    """
    exporters: dict[Signal, list[str]] = {signal: _read_exporters(signal) for signal in SIGNALS}
    if read_boolean("OTEL_SDK_DISABLED"):
        exporters = {signal: [] for signal in SIGNALS}
    _check_others()
    span_batches, log_batches = _read_batches("BSP", delay=5_000), _read_batches("BLRP", delay=1_000)
    timeouts: dict[Signal, int] = {
        "traces": span_batches.timeout,
        "metrics": read_number("OTEL_METRIC_EXPORT_TIMEOUT", default=30_000),
        "logs": log_batches.timeout,
    }
    parent_based, ratio = _read_sampler()
    return TelemetrySettings(
        exporters,
        {signal: read_otlp_settings(signal, timeouts[signal]) for signal in SIGNALS},
        span_batches,
        log_batches,
        parent_based,
        ratio,
        read_number("OTEL_METRIC_EXPORT_INTERVAL", default=60_000) / 1000,
        delta=_read_temporality() != "cumulative",
        exemplars=_read_exemplar_filter() != "always_off",
        prometheus_address=_read_prometheus_address(),
        sdk_log_level=_LOG_LEVELS[read_choice("OTEL_LOG_LEVEL", choices=tuple(_LOG_LEVELS)[1:], default="")],
    )


def _read_exporters(signal: Signal) -> list[str]:
    endpoints = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    default = "otlp" if read_text(*endpoints)[1] else "none"
    return read_choices(f"OTEL_{signal.upper()}_EXPORTER", choices=_EXPORTERS[signal], default=default)


def _read_batches(prefix: str, delay: int) -> BatchSettings:
    names = [f"OTEL_{prefix}_{name}" for name in ("MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")]
    queue, batch = read_number(names[0], default=2_048), read_number(names[1], default=512)
    if batch > queue:
        raise InvalidSetting(f"{names[1]}: {batch} is more than {names[0]}, {queue}")
    return BatchSettings(
        read_number(f"OTEL_{prefix}_SCHEDULE_DELAY", default=delay),
        queue,
        batch,
        read_number(f"OTEL_{prefix}_EXPORT_TIMEOUT", default=30_000),
    )


def _read_sampler() -> tuple[bool, float]:
    """Return whether the caller's decision counts, and the ratio."""
    choices = (*_SAMPLERS, *(f"parentbased_{name}" for name in _SAMPLERS))
    name = read_choice("OTEL_TRACES_SAMPLER", choices=choices, default="parentbased_always_on")
    root = name.removeprefix("parentbased_")
    ratio = {"always_on": 1.0, "always_off": 0.0}.get(root)
    return root != name, read_ratio("OTEL_TRACES_SAMPLER_ARG") if ratio is None else ratio


def _read_temporality() -> str:
    variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    return read_choice(variable, choices=("cumulative", "delta", "lowmemory"), default="cumulative")


def _read_exemplar_filter() -> str:
    variable = "OTEL_METRICS_EXEMPLAR_FILTER"
    return read_choice(variable, choices=("trace_based", "always_off"), default="trace_based")


def _read_prometheus_address() -> str:
    host = read_text("OTEL_EXPORTER_PROMETHEUS_HOST")[1] or "localhost"
    port = read_number("OTEL_EXPORTER_PROMETHEUS_PORT", default=9464, minimum=0)
    if port > 65_535:
        raise InvalidSetting(f"OTEL_EXPORTER_PROMETHEUS_PORT={port}: not a port")
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def _check_others() -> None:
    """Check the variables that others read, or that have one supported value."""
    if read_text("OTEL_CONFIG_FILE")[1]:
        raise InvalidSetting("OTEL_CONFIG_FILE: not supported; set the single variables")
    for name in _LIMITS:
        read_number(name, default=0, minimum=0)
    read_pairs("OTEL_RESOURCE_ATTRIBUTES")
    propagators = read_choices(
        "OTEL_PROPAGATORS", choices=("tracecontext", "baggage"), default="tracecontext"
    )
    if "tracecontext" not in propagators:  # baggage is of the standard's default, and nothing here has any
        raise InvalidSetting("OTEL_PROPAGATORS: tracecontext is missing, the one that carries traces")
    aggregation = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    read_choice(aggregation, choices=("explicit_bucket_histogram",), default="")


def list_unknown_variables() -> Iterator[str]:
    """Yield the names of the `OTEL_*` variables that have no effect."""
    for name, value in os.environ.items():
        if value and name.startswith("OTEL_") and not _KNOWN.fullmatch(name):
            yield name
