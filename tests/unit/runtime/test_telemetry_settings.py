"""The `OTEL_*` variables mean what OpenTelemetry documents; a value that is not supported names itself."""

from pathlib import Path

import pytest

from runtime.process.start_error import InvalidSetting
from runtime.telemetry.telemetry_settings import (
    BatchSettings,
    list_unknown_variables,
    read_telemetry_settings,
)
from tests.support.harness.certificates import write_certificate

SECRET = "s3cret"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER", "OTEL_LOGS_EXPORTER"):
        monkeypatch.delenv(name, raising=False)


def set_all(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_{name}", value)


def test_without_variables_nothing_is_exported() -> None:
    settings = read_telemetry_settings()
    assert settings.exporters == {"traces": [], "metrics": [], "logs": []}
    assert (settings.span_batches, settings.log_batches) == (
        BatchSettings(5_000, 2_048, 512, 30_000),
        BatchSettings(1_000, 2_048, 512, 30_000),
    )
    assert (settings.parent_based, settings.ratio, settings.metric_interval) == (True, 1.0, 60.0)
    assert (settings.delta, settings.exemplars) == (False, True)


def test_an_endpoint_switches_its_signals_on(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, EXPORTER_OTLP_LOGS_ENDPOINT="http://collector:4317")
    assert read_telemetry_settings().exporters == {"traces": [], "metrics": [], "logs": ["otlp"]}
    set_all(monkeypatch, EXPORTER_OTLP_ENDPOINT="http://collector:4317", TRACES_EXPORTER="none")
    assert read_telemetry_settings().exporters == {"traces": [], "metrics": ["otlp"], "logs": ["otlp"]}
    set_all(monkeypatch, SDK_DISABLED="TRUE")
    assert not any(read_telemetry_settings().exporters.values())


def test_a_list_of_exporters(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, TRACES_EXPORTER="otlp, console,otlp", METRICS_EXPORTER="PROMETHEUS")
    exporters = read_telemetry_settings().exporters
    assert (exporters["traces"], exporters["metrics"]) == (["otlp", "console"], ["prometheus"])


def test_a_signals_own_variable_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch,
        EXPORTER_OTLP_PROTOCOL="http/protobuf",
        EXPORTER_OTLP_TRACES_PROTOCOL="grpc",
        EXPORTER_OTLP_ENDPOINT="https://collector:4318/base/",
        EXPORTER_OTLP_TRACES_ENDPOINT="collector:4317",
        EXPORTER_OTLP_METRICS_ENDPOINT="https://other/own/path",
        EXPORTER_OTLP_TIMEOUT="1500",
        EXPORTER_OTLP_LOGS_TIMEOUT="2500",
        EXPORTER_OTLP_HEADERS="api-key=a%20b, x=1=2",
        EXPORTER_OTLP_COMPRESSION="gzip",
        EXPORTER_OTLP_METRICS_COMPRESSION="none",
        EXPORTER_OTLP_TRACES_INSECURE="true",
        METRIC_EXPORT_TIMEOUT="700",
    )
    otlp = read_telemetry_settings().otlp
    assert [(s.protocol, s.endpoint) for s in otlp.values()] == [
        ("grpc", "collector:4317"),
        ("http/protobuf", "https://other/own/path"),
        ("http/protobuf", "https://collector:4318/base/v1/logs"),
    ]
    assert [s.timeout for s in otlp.values()] == [1.5, 0.7, 2.5]
    assert [s.gzip for s in otlp.values()] == [True, False, True]
    assert otlp["traces"].insecure
    assert otlp["logs"].headers == {"api-key": "a b", "x": "1=2"}


def test_defaults_of_the_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    otlp = read_telemetry_settings().otlp["traces"]
    assert (otlp.endpoint, otlp.insecure, otlp.timeout) == ("http://localhost:4317", True, 10.0)
    set_all(monkeypatch, EXPORTER_OTLP_PROTOCOL="http/protobuf")
    assert read_telemetry_settings().otlp["metrics"].endpoint == "http://localhost:4318/v1/metrics"
    set_all(monkeypatch, EXPORTER_OTLP_PROTOCOL="grpc", EXPORTER_OTLP_ENDPOINT="collector:4317")
    assert not read_telemetry_settings().otlp["logs"].insecure


@pytest.mark.parametrize(
    ("name", "arg", "expected"),
    [
        ("always_on", "", (False, 1.0)),
        ("always_off", "", (False, 0.0)),
        ("traceidratio", "0.25", (False, 0.25)),
        ("parentbased_always_off", "", (True, 0.0)),
        ("parentbased_traceidratio", "0.1", (True, 0.1)),
        ("parentbased_traceidratio", "", (True, 1.0)),
    ],
)
def test_samplers(name: str, arg: str, expected: tuple[bool, float], monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, TRACES_SAMPLER=name, TRACES_SAMPLER_ARG=arg)
    settings = read_telemetry_settings()
    assert (settings.parent_based, settings.ratio) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SDK_DISABLED", "yes"),
        ("TRACES_EXPORTER", "zipkin"),
        ("TRACES_EXPORTER", "prometheus"),
        ("METRICS_EXPORTER", "otlp,none"),
        ("LOGS_EXPORTER", "otlp,,console"),
        ("EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("EXPORTER_OTLP_LOGS_PROTOCOL", "http"),
        ("EXPORTER_OTLP_ENDPOINT", "ftp://collector:4317"),
        ("EXPORTER_OTLP_ENDPOINT", "collector"),
        ("EXPORTER_OTLP_ENDPOINT", "http://collector:99999"),
        ("EXPORTER_OTLP_ENDPOINT", "http://collector:4317/v1/traces"),
        ("EXPORTER_OTLP_METRICS_ENDPOINT", "http://"),
        ("EXPORTER_OTLP_HEADERS", f"api-key:{SECRET}"),
        ("EXPORTER_OTLP_HEADERS", f"api key={SECRET}"),
        ("EXPORTER_OTLP_HEADERS", f"api-key={SECRET}%0d%0ax: y"),
        ("EXPORTER_OTLP_TIMEOUT", "10s"),
        ("EXPORTER_OTLP_TIMEOUT", "1.5"),
        ("EXPORTER_OTLP_TIMEOUT", "-1"),
        ("EXPORTER_OTLP_TIMEOUT", "9" * 5_000),
        ("EXPORTER_OTLP_COMPRESSION", "deflate"),
        ("EXPORTER_OTLP_CERTIFICATE", "/does/not/exist"),
        ("METRIC_EXPORT_INTERVAL", "0"),
        ("METRIC_EXPORT_TIMEOUT", "soon"),
        ("EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "some"),
        ("EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"),
        ("METRICS_EXEMPLAR_FILTER", "always_on"),
        ("BSP_SCHEDULE_DELAY", "x"),
        ("BSP_MAX_EXPORT_BATCH_SIZE", "2049"),
        ("BLRP_MAX_QUEUE_SIZE", "0"),
        ("TRACES_SAMPLER", "jaeger_remote"),
        ("TRACES_SAMPLER", "parentbased"),
        ("SPAN_EVENT_COUNT_LIMIT", "many"),
        ("RESOURCE_ATTRIBUTES", "service.version"),
        ("PROPAGATORS", "baggage"),
        ("PROPAGATORS", "none"),
        ("PROPAGATORS", "b3"),
        ("CONFIG_FILE", "otel.yaml"),
        ("LOG_LEVEL", "loud"),
        ("EXPORTER_PROMETHEUS_PORT", "65536"),
    ],
)
def test_a_value_that_is_not_supported_names_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, **{name: value})
    with pytest.raises(InvalidSetting) as error:
        read_telemetry_settings()
    assert str(error.value).startswith(f"OTEL_{name}")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("arg", ["a", "1.1", "-0.1", "nan"])
def test_a_ratio_is_from_0_to_1(arg: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, TRACES_SAMPLER="traceidratio", TRACES_SAMPLER_ARG=arg)
    with pytest.raises(InvalidSetting, match="OTEL_TRACES_SAMPLER_ARG"):
        read_telemetry_settings()


def test_a_client_key_needs_its_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("")
    set_all(monkeypatch, EXPORTER_OTLP_CLIENT_KEY=str(tmp_path / "key"))
    with pytest.raises(InvalidSetting, match="OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: is missing"):
        read_telemetry_settings()


def test_certificates_are_read_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, other = write_certificate(tmp_path / "own.pem"), write_certificate(tmp_path / "other.pem")
    set_all(
        monkeypatch,
        EXPORTER_OTLP_CERTIFICATE=str(own),
        EXPORTER_OTLP_CLIENT_KEY=str(own),
        EXPORTER_OTLP_CLIENT_CERTIFICATE=str(own),
    )
    assert read_telemetry_settings().otlp["logs"].client_certificate == str(own)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(other))
    with pytest.raises(InvalidSetting, match=r"CLIENT_CERTIFICATE: .*own.pem cannot be used"):
        read_telemetry_settings()
    (tmp_path / "none.pem").write_text("no certificate")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "none.pem"))
    with pytest.raises(InvalidSetting, match=r"OTEL_EXPORTER_OTLP_CERTIFICATE: .*none.pem cannot be used"):
        read_telemetry_settings()


def test_the_standards_default_propagators_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, PROPAGATORS="tracecontext,baggage")
    read_telemetry_settings()


def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(
        monkeypatch, EXPORTER_OTLP_TIMEOUT="", TRACES_EXPORTER="", TRACES_SAMPLER=" ", BSP_MAX_QUEUE_SIZE=""
    )
    assert read_telemetry_settings().otlp["traces"].timeout == 10


def test_variables_without_an_effect_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, TRACE_EXPORTER="otlp", RESOURCE_ATTRIBUTES_POD_NAME="p", TRACES_EXPORTER="otlp")
    assert list(list_unknown_variables()) == ["OTEL_TRACE_EXPORTER"]
