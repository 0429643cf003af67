"""The service config covers the protos, read here as text."""

import re
import subprocess
import sys
from pathlib import Path

from diptych_client import service_config

from runtime.grpc.listener import MAX_RECEIVED_BYTES

PROTOS = Path(__file__).parents[3] / "protos"
METHOD = re.compile(r"^  rpc (\w+)\(\w+\) returns \((stream )?", re.MULTILINE)


def services() -> dict[str, list[tuple[str, str]]]:
    """Return the methods of each service, with `stream ` for a watch."""
    methods: dict[str, list[tuple[str, str]]] = {}
    for path in PROTOS.rglob("*.proto"):
        text = path.read_text()
        (package,) = re.findall(r"^package ([\w.]+);", text, re.MULTILINE)
        for service, body in re.findall(r"^service (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
            methods[f"{package}.{service}"] = METHOD.findall(body)
    return methods


def test_every_service_of_the_protos_is_repeated_with_a_timeout() -> None:
    calls, _ = service_config()["methodConfig"]
    assert len(services()) >= 8
    assert sorted(name["service"] for name in calls["name"]) == sorted(services())
    assert all(name.keys() == {"service"} for name in calls["name"]), "all methods of the service"
    assert calls["timeout"] == "5s"
    assert calls["maxRequestMessageBytes"] == MAX_RECEIVED_BYTES
    assert calls["retryPolicy"]["maxAttempts"] == 5
    assert service_config()["retryThrottling"] == {"maxTokens": 100, "tokenRatio": 0.2}


def test_watches_have_neither_timeout_nor_retries() -> None:
    _, watches = service_config()["methodConfig"]
    expected = {
        (service, method) for service, methods in services().items() for method, stream in methods if stream
    }
    assert len(expected) >= 3
    assert {(name["service"], name["method"]) for name in watches["name"]} == expected
    assert watches.keys() == {"name", "waitForReady"}


def test_a_caller_who_changes_the_config_changes_a_copy() -> None:
    service_config()["methodConfig"][0]["retryPolicy"]["retryableStatusCodes"].clear()
    assert service_config()["methodConfig"][0]["retryPolicy"]["retryableStatusCodes"]


def test_packages_of_stubs_limit_the_services() -> None:
    calls, watches = service_config("diptych.ordering")["methodConfig"]
    names = {name["service"] for name in (*calls["name"], *watches["name"])}
    assert names == {service for service in services() if service.startswith("diptych.ordering.")}


def test_a_package_that_is_not_installed_has_an_error_of_one_line() -> None:
    command = [sys.executable, "-m", "diptych_client", "nowhere"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, "diptych_client: No module named 'nowhere'\n")
