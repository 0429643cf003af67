"""Calls to the operations server: its settings, pages, and errors as one line with an exit code."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from diptych.operations.v1 import operations_service_pb2 as messages
from diptych.operations.v1.parked_pb2 import ParkedAggregate
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from devstack.tcp_ports import free_port
from operations.client.api import OperationsApi, list_entries
from operations.client.errors import CallRefused
from operations.client.target import ADDRESS, DEFAULTS, TOKEN, Target, read_target
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, NotAsked, StartError
from tests.support.harness.authority import Authority


class Service:
    """Answers with pages of 3 parked aggregates out of 8, and with the error that a projection's name is."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.tokens: list[str] = []

    def list_parked(self, request: Any, context: Any) -> Any:
        self.sizes.append(request.page_size)
        self.tokens.append(dict(context.invocation_metadata())["authorization"])
        start = int(request.page_token or 0)
        end = min(start + min(3, request.page_size), 8)
        aggregates = [ParkedAggregate(id=str(number)) for number in range(start, end)]
        token = str(end) if end < 8 else ""
        return messages.ListParkedAggregatesResponse(aggregates=aggregates, next_page_token=token)

    def fail(self, request: Any, context: Any) -> Any:
        code = getattr(grpc.StatusCode, request.projection)
        is_long = request.reason == "long"  # a fact that is cut in the metadata
        metadata = {"a": "123…"} if is_long else {"b": "2", "a": "1"}
        info = error_details_pb2.ErrorInfo(reason="SOME_REASON", metadata=metadata)
        packed = any_pb2.Any()
        packed.Pack(info)
        status = status_pb2.Status(code=code.value[0], details=[packed] if request.reason else [])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        texts = {"long": "a text (a=12345)", "not done": "the act was not done"}
        context.abort(code, texts.get(request.reason, "a text about 1"))
        raise AssertionError("abort raises")


@pytest.fixture
def service() -> Iterator[tuple[Service, OperationsApi]]:
    server, service = grpc.server(ThreadPoolExecutor(2)), Service()
    handlers: dict[str, Any] = {
        "ListParkedAggregates": grpc.unary_unary_rpc_method_handler(
            service.list_parked,
            messages.ListParkedAggregatesRequest.FromString,
            messages.ListParkedAggregatesResponse.SerializeToString,
        ),
        "RetryParkedAggregates": grpc.unary_unary_rpc_method_handler(
            service.fail, messages.RetryParkedAggregatesRequest.FromString
        ),
    }
    name = "diptych.operations.v1.OperationsService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with OperationsApi(Target(f"127.0.0.1:{port}", "secret")) as api:
        yield service, api
    server.stop(0)


@pytest.mark.parametrize(
    ("limit", "expected", "sizes"), [(0, 8, [200, 200, 200]), (5, 5, [5, 2]), (3, 3, [3]), (8, 8, [8, 5, 2])]
)
def test_a_list_is_read_in_pages_up_to_its_limit(
    service: tuple[Service, OperationsApi], limit: int, expected: int, sizes: list[int]
) -> None:
    server, api = service
    request = messages.ListParkedAggregatesRequest()
    pages = list(api.list_pages(api.stub.ListParkedAggregates, request, limit))
    assert [each.id for page in pages for each in list_entries(page)] == [str(i) for i in range(expected)]
    assert server.sizes == sizes
    assert set(server.tokens) == {"Bearer secret"}
    assert bool(pages[-1].next_page_token) == (expected < 8)


def act(api: OperationsApi, code: str, reason: str = "why") -> StartError:
    request = messages.RetryParkedAggregatesRequest(projection=code, reason=reason)
    with pytest.raises(StartError) as raised:
        api.call(api.stub.RetryParkedAggregates, request, is_act=True)
    return raised.value


@pytest.mark.parametrize(
    ("code", "exit_code", "suffix"),
    [
        ("NOT_FOUND", 1, ""),
        ("FAILED_PRECONDITION", 1, ""),
        ("INVALID_ARGUMENT", 2, ""),
        ("UNAVAILABLE", 2, "; whether it took effect is unknown"),
        ("UNAUTHENTICATED", 2, "; the token is that of DIPTYCH_OPERATIONS_TOKEN"),
        ("PERMISSION_DENIED", 2, "; the token is that of DIPTYCH_OPERATIONS_TOKEN"),
    ],
)
def test_an_error_has_its_reason_and_facts(
    service: tuple[Service, OperationsApi], code: str, exit_code: int, suffix: str
) -> None:
    error = act(service[1], code)
    assert (error.exit_code, str(error)) == (exit_code, f"SOME_REASON: a text about 1 (b=2){suffix}")


def test_a_server_of_another_kind_is_named(service: tuple[Service, OperationsApi]) -> None:
    error = act(service[1], "UNIMPLEMENTED")
    assert isinstance(error, CallRefused)
    assert f"({ADDRESS}) an operations server" in str(error)


def test_a_fact_that_the_text_has_is_not_repeated(service: tuple[Service, OperationsApi]) -> None:
    assert str(act(service[1], "NOT_FOUND", reason="long")) == "SOME_REASON: a text (a=12345)"


def test_an_act_that_was_not_done_is_not_said_to_be_unknown(service: tuple[Service, OperationsApi]) -> None:
    assert str(act(service[1], "UNAVAILABLE", reason="not done")).endswith("the act was not done (a=1, b=2)")


def test_an_error_of_grpc_itself_names_address_and_setting(service: tuple[Service, OperationsApi]) -> None:
    error = act(service[1], "UNIMPLEMENTED", reason="")
    assert error.exit_code == 2
    assert f"({ADDRESS}) answers UNIMPLEMENTED: a text" in str(error)


def test_a_server_that_is_not_there_is_one_line() -> None:
    address = f"127.0.0.1:{free_port()}"
    with OperationsApi(Target(address, "t")) as api:
        error = act(api, "NOT_FOUND")
    assert (type(error), error.exit_code) == (NotAsked, 2)
    assert str(error).startswith(f"the operations server at {address} ({ADDRESS}) cannot be reached: ")
    assert "refused" in str(error)
    assert "unknown" not in str(error).lower().replace("unknown: ipv4", "")


def test_the_defaults_are_those_of_the_processes() -> None:
    fields = Settings.model_fields
    assert {
        ADDRESS: fields["operations_address"].default,
        TOKEN: fields["operations_token"].default,
    } == DEFAULTS


def test_the_target_is_read_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("a.b.c\n")
    monkeypatch.setenv(ADDRESS, "[::1]:50056")
    monkeypatch.setenv(TOKEN, str(tmp_path / "token"))
    assert read_target() == Target("[::1]:50056", "a.b.c")


@pytest.mark.parametrize("address", ["", "localhost", "a b:1", "host:http", "a\udcff:1"])
def test_a_malformed_address_names_its_setting(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, address)
    with pytest.raises(InvalidSetting, match=f"^{ADDRESS}: "):
        read_target()


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("a.b.c")
    monkeypatch.setenv(TOKEN, str(tmp_path / "token"))


def test_a_token_is_not_sent_to_another_machine_in_the_clear(
    token: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "operations.internal:50056"
    monkeypatch.setenv(ADDRESS, address)
    with pytest.raises(
        InvalidSetting, match=rf"^{ADDRESS}={address}: .*set DIPTYCH_TLS_CA, or DIPTYCH_INSEC"
    ):
        read_target()
    monkeypatch.setenv("DIPTYCH_INSECURE", "1")
    assert read_target() == Target(address, "a.b.c")
    monkeypatch.delenv("DIPTYCH_INSECURE")
    monkeypatch.setenv("DIPTYCH_TLS_CA", str(Authority(tmp_path).path))
    assert read_target().credentials is not None
    monkeypatch.setenv("DIPTYCH_TLS_CA", str(tmp_path / "absent"))
    with pytest.raises(InvalidSetting, match=r"^DIPTYCH_TLS_CA: cannot use .*No such file"):
        read_target()


def test_the_server_is_called_by_tls_with_a_certificate(
    token: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, server = Authority(tmp_path), grpc.server(ThreadPoolExecutor(1))
    certificate, key = (path.read_bytes() for path in authority.write("server"))
    credentials = grpc.ssl_server_credentials([(key, certificate)], authority.path.read_bytes(), True)
    monkeypatch.setenv(ADDRESS, f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}")
    monkeypatch.setenv("DIPTYCH_TLS_CA", str(authority.path))
    server.start()
    with OperationsApi(read_target()) as api:
        assert "cannot be reached" in str(act(api, "NOT_FOUND"))
    for name, path in zip(("CERTIFICATE", "KEY"), authority.write("operator"), strict=True):
        monkeypatch.setenv(f"DIPTYCH_TLS_{name}", str(path))
    with OperationsApi(read_target()) as api:
        assert "UNIMPLEMENTED" in str(act(api, "NOT_FOUND"))
    server.stop(0)


def write_token(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("prepare", "text"),
    [
        (lambda _: None, "cannot read the file: No such file"),
        (lambda path: path.mkdir(), "cannot read the file: is not a regular file"),
        (write_token(b""), "is not a token"),
        (write_token(b"a b"), "is not a token"),
        (write_token(b"a\nb"), "is not a token"),
        (write_token(b"\xff\xfe"), "is not a token"),
        (write_token(b"x" * 1_000_001), "has more than"),
    ],
)
def test_a_malformed_token_names_setting_and_file(
    prepare: Callable[[Path], object], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "token")
    monkeypatch.setenv(TOKEN, str(tmp_path / "token"))
    with pytest.raises(InvalidSetting, match=f"^{TOKEN}={tmp_path}/token: .*{text}"):
        read_target()
