"""An audit says "no known vulnerabilities" only after a source has answered for every dependency."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from deploy.supply_chain.audit import (
    CLEAN,
    KNOWN_VULNERABLE,
    NOT_AUDITED,
    VULNERABLE,
    audit,
    judge,
    read_pins,
    split,
)

CANARY = {
    "name": "jinja2",
    "version": "2.10",
    "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}],
}
IDNA = {"name": "idna", "version": "3.20", "vulns": []}
PINS = [("idna", "3.20")]


class Source(BaseHTTPRequestHandler):
    """Answers as OSV does, with advisories of jinja2 and numpy 1.0."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = query["package"]["name"]
        known = [KNOWN_VULNERABLE, ("numpy", "1.0")]
        answer = {"vulns": [{"id": "X-1", "affected": []}]} if (name, query["version"]) in known else {}
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Print nothing."""


@pytest.fixture
def source() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Source)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_dependency_is_looked_up_and_an_advisory_is_shown(source: str) -> None:
    pins = [
        ("numpy", "1.0"),
        ("numpy", "2.0"),
        ("protobuf-py", "0.7.0"),
        ("types-protobuf", "7.35.1.20260906"),
    ]
    assert audit(pins, ["--osv-url", source]) == (VULNERABLE, ["numpy 1.0: X-1, mended in no version"])


def test_without_a_source_nothing_is_called_clean() -> None:
    code, [line] = audit(PINS, ["--osv-url", "http://127.0.0.1:1/"])
    assert code == NOT_AUDITED
    assert line.startswith("Not audited: no answer from an advisory source (")


def test_answers_for_all_dependencies_without_advisories_are_clean() -> None:
    assert judge(PINS, [CANARY, IDNA]) == (CLEAN, ["1 locked dependencies: no known vulnerabilities"])


def test_an_advisory_names_the_version_that_mends_it() -> None:
    vulnerable = {**IDNA, "vulns": [{"id": "X-2", "fix_versions": ["3.21"]}]}
    assert judge(PINS, [CANARY, vulnerable]) == (VULNERABLE, ["idna 3.20: X-2, mended in 3.21"])


@pytest.mark.parametrize(
    ("answers", "line"),
    [
        ([{**CANARY, "vulns": []}, IDNA], "the source knows no advisory of jinja2 2.10, which has some"),
        ([IDNA], "the source knows no advisory of jinja2 2.10, which has some"),
        ([CANARY, {"name": "idna", "skip_reason": "not found"}], "the source does not have idna 3.20"),
        ([CANARY], "the source does not have idna 3.20"),
    ],
)
def test_a_source_that_does_not_know_is_believed_nothing(answers: list[dict[str, Any]], line: str) -> None:
    assert judge(PINS, answers) == (NOT_AUDITED, [f"Not audited: {line}"])


def test_two_versions_of_a_package_are_audited_apart() -> None:
    pins = [("idna", "3.20"), ("numpy", "1.0"), ("numpy", "2.0")]
    assert split(pins) == [[("idna", "3.20"), ("numpy", "1.0")], [("numpy", "2.0")]]


def test_the_locked_versions_of_all_platforms_and_the_tools_are_audited() -> None:
    pins = read_pins()
    names = {name for name, _ in pins}
    assert {"grpcio", "protobuf-py-ext", "h2corn", "pytest", "matplotlib", "uv", "hatchling"} <= names
    assert not {"diptych", "diptych-client", "diptych-stubs"} & names
    assert KNOWN_VULNERABLE not in pins
