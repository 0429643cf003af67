"""Every setting refuses what it cannot use, in one line that names it and shows no secret."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from operations.processes import KINDS
from runtime.process import setting_types as types
from runtime.process.lifecycle import parse_settings
from runtime.process.retention import Retention
from runtime.process.setting_types import DATABASE_OPTIONS, REDIS_OPTIONS
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting

SECRET = "pass-w0rd"
NOT_UTF_8 = "a\udcff"
UNPRINTABLE = ["a\x1b[2J", "a\nb", "a\tb", "a\u202eb"]
ADDRESSES = [
    *(
        "localhost",
        "localhost:",
        ":50051",
        "localhost:port",
        "localhost:-1",
        "localhost:65536",
        "localhost:1e3",
    ),
    *("::1:50051", "a b:1", "host:١", "http://host:1/", f"host:{'9' * 400}", *UNPRINTABLE),
]
NUMBERS = ["", "nan", "-1", "ten", "5s", "1,5", "0x10", "9" * 5_000, "1e400", "--", NOT_UTF_8]
URLS = [
    *("", "localhost", "host:1", "://", "ftp://host/0", "http://host:1/x", *UNPRINTABLE, NOT_UTF_8),
    *(f"SCHEME://u:{SECRET}@host:{port}/1" for port in ("port", "-1", "65536", "0", "1e3")),
    *(f"SCHEME://u:{SECRET}/x@host:1/1", f"SCHEME://u:{SECRET}[@host:1/1", f"SCHEME://u:{SECRET}@/1"),
    *(f"SCHEME://u:{SECRET}@host:1/1#x", f"SCHEME://u:{SECRET} @host:1/1"),
]
OPTIONS = [
    "?",
    "?x",
    "?x=1",
    "?=1",
    "?db",
    "?a=1&b=2",
    "?sslmode=on",
    "?sslmode=",
    "?sslmode=require&sslmode=disable",
]


def urls(scheme: str, *more: str) -> list[str]:
    url = f"{scheme}://u:{SECRET}@host:1/1"
    return [*(text.replace("SCHEME", scheme) for text in URLS), *(url + text for text in OPTIONS[1:]), *more]


BAD: dict[Any, Sequence[str]] = {
    types.Text: ["", *UNPRINTABLE, NOT_UTF_8],
    types.KeySource: [
        "",
        "http://",
        "https://:80",
        "http://host:port/x",
        "http://h:65536",
        *UNPRINTABLE,
        NOT_UTF_8,
    ],
    types.Address: ["", *ADDRESSES, NOT_UTF_8],
    types.OptionalAddress: [*ADDRESSES, NOT_UTF_8],
    types.Targets: [
        "inventory",
        "inventory=",
        "=host:1",
        "a=host",
        "a=host:x",
        "a=h:1,a=h:2",
        *UNPRINTABLE,
        NOT_UTF_8,
    ],
    types.DatabaseUrl: urls("postgresql", "postgresql:///diptych"),
    types.NatsUrl: urls("nats", "nats://a:1,", "nats://a:1,b:2", "nats://a:1?ca=ca.pem", "tls://a:1?tls=1"),
    types.RedisUrl: urls("redis", "redis://host:1/x", "redis://host:1/-1", "redis://host:1/1/2", "unix:///x"),
    types.Seconds: [*NUMBERS, "inf", "86401"],
    types.PositiveSeconds: [*NUMBERS, "inf", "0", "86401"],
    Retention: [
        "",
        "30",
        "30 d",
        "d",
        "-1d",
        "1.5d",
        "30x",
        "59m",
        "36501d",
        "nan",
        f"{'9' * 400}d",
        NOT_UTF_8,
    ],
    int: [*NUMBERS, "inf", "1.5", NOT_UTF_8],
    bool: ["", "maybe", "2", "yess", NOT_UTF_8],
    float: [*NUMBERS, "inf"],
    str: [NOT_UTF_8],
}
"""Malformed values by the type of a setting."""


def find_type(field: FieldInfo) -> Any:
    """Return the key in BAD, from the type of a setting or its validator."""
    full = field.rebuild_annotation()
    if full in BAD:
        return full
    return next((kind for kind in BAD if kind == field.annotation), None)


def list_cases() -> list[tuple[str, str]]:
    cases = []
    for name, field in Settings.model_fields.items():
        values = BAD.get(find_type(field), ["", "loud", NOT_UTF_8])
        cases += [(name, value) for value in values]
    return cases


def test_the_malformed_values_of_every_type_are_known() -> None:
    enumerations = {name for name, field in Settings.model_fields.items() if find_type(field) is None}
    assert enumerations == {"grpc_server", "log_level", "log_format", "tls_client_certificates"}
    assert len(list_cases()) > 300


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_a_malformed_setting_is_named_in_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"DIPTYCH_{name.upper()}"
    values = [value for setting, value in list_cases() if setting == name]
    for value in (values[0], values[-1]):
        monkeypatch.setenv(variable, value)
        with pytest.raises(InvalidSetting) as error:
            parse_settings()
        assert str(error.value).startswith(f"{variable}: "), (value, str(error.value))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_all_malformed_values_of_a_setting_are_refused_without_showing_secrets(name: str) -> None:
    field = TypeAdapter[Any](Settings.model_fields[name].rebuild_annotation())
    for value in [value for setting, value in list_cases() if setting == name and value != NOT_UTF_8]:
        try:
            field.validate_python(value)
        except ValidationError as error:
            texts = [each["msg"] for each in error.errors()]
        else:
            pytest.fail(f"{value!r} is accepted")
        assert not any(SECRET in text or "\n" in text for text in texts), (value, texts)


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_the_default_of_a_setting_is_valid(name: str) -> None:
    field = Settings.model_fields[name]
    TypeAdapter(field.rebuild_annotation()).validate_python(field.default)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (
            "database_url",
            f"postgresql://u:{SECRET}@db.example:5432/diptych?sslmode=verify-full&sslrootcert=ca.pem",
        ),
        ("database_url", "postgresql:///diptych?host=/var/run/postgresql"),
        ("database_url", "postgres://u:p%40ss@[::1]:5432/diptych?application_name=a"),
        ("database_url", "postgresql://db.example:5432"),
        ("nats_url", f"tls://u:{SECRET}@a:4222, nats://b:4222"),
        ("nats_url", "tls://a:4222?ca=ca.pem&cert=own.pem&key=own.key,tls://b:4222"),
        ("redis_url", f"rediss://u:{SECRET}@cache.example:6379/0?ssl_ca_certs=ca.pem&ssl_cert_reqs=required"),
        ("redis_url", "redis://cache.example?db=3"),
        ("command_address", "[::]:50051"),
        ("query_address", "0.0.0.0:0"),
        ("command_targets", "inventory=a:1, banking=b:2,"),
        ("jwks", "https://issuer.example/jwks.json"),
        ("stall_exit", "0"),
        ("keep_audit", "unlimited"),
    ],
)
def test_a_setting_takes_what_it_can_use(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"DIPTYCH_{name.upper()}", value)
    parse_settings()


def test_several_malformed_settings_are_all_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_MAX_WAIT", "nan")
    monkeypatch.setenv("DIPTYCH_LOG_LEVEL", "loud")
    with pytest.raises(InvalidSetting, match=r"DIPTYCH_MAX_WAIT: .*; DIPTYCH_LOG_LEVEL: "):
        parse_settings()


def test_the_options_of_urls_are_matched_in_full() -> None:
    for options in (DATABASE_OPTIONS, REDIS_OPTIONS):
        assert all(not pattern.fullmatch("") for pattern in options.values())
    assert all(getattr(Settings(), kind.address) for kind in KINDS)
