"""Access is denied by default: a server with a method without an access rule does not start."""

from typing import Any

import pytest
from diptych.access.v1 import access_pb2

from runtime.grpc import access
from runtime.grpc.caller import Caller, set_current
from runtime.grpc.method import Method
from runtime.grpc.owners import check_owner
from runtime.grpc.routes import Routes, Service
from runtime.grpc.rpc_error import RpcError
from runtime.process.start_error import StartError
from tests.support.harness.made_service import made_service
from tests.support.ledger.stubs import commands, queries

CONTEXT: Any = None
OK: Any = "OK"


async def handler(request: Any, context: Any) -> Any:
    return request


async def on_unknown(context: Any) -> None:
    raise AssertionError(context)


def test_a_methods_scope_is_read_from_its_proto() -> None:
    deposit = commands.DESCRIPTOR.services_by_name["CommandService"].methods_by_name["Deposit"]
    assert access.scopes_of(deposit) == ("ledger.write",)


@pytest.mark.parametrize(("name", "rule"), [("Bare", None), ("Empty", access_pb2.Rule())])
def test_a_method_without_a_rule_prevents_the_start(name: str, rule: access_pb2.Rule | None) -> None:
    with pytest.raises(StartError, match=rf"test\.{name}\.Do has no option diptych\.access\.v1\.rule"):
        Routes([Service(made_service(name, rule=rule), {"Do": handler})], [], on_unknown)


def test_a_service_made_at_run_time_with_a_rule_is_accepted() -> None:
    ruled = made_service("Ruled", rule=access_pb2.Rule(scope="test.do", any_object=True))
    Routes([Service(ruled, {"Do": handler})], [], on_unknown)


@pytest.mark.parametrize(
    ("name", "rule", "error"),
    [
        ("Whose", access_pb2.Rule(scope="test.do"), "needs either owner or any_object"),
        (
            "Both",
            access_pb2.Rule(scope="test.do", owner="account_id", any_object=True),
            "needs either owner or any_object",
        ),
        ("NoString", access_pb2.Rule(scope="test.do", owner="page_size"), "page_size, is not one string"),
    ],
)
def test_a_rule_that_does_not_say_whose_objects_prevents_the_start(
    name: str, rule: access_pb2.Rule, error: str
) -> None:
    service = made_service(name, rule=rule, request="ListChequesRequest")
    with pytest.raises(StartError, match=rf"test\.{name}\.Do.*{error}"):
        Routes([Service(service, {"Do": handler})], [], on_unknown)


def made_method(name: str, owner: str) -> Method:
    """Return a method `Do` with this owner; its request has the field `cheque_id`."""
    rule = access_pb2.Rule(scope="test.do", owner=owner)
    return Method.of(made_service(name, rule=rule, package="diptych.test.v1").methods_by_name["Do"])


NAMED = made_method("Named", "cheque_id")
FOUND = made_method("Found", "writer")


def call(method: Method, owner: str, *scopes: str, on_behalf_of: str | None = None) -> str:
    """Return what alice gets: `OK`, or the reason of the error and the scope that it names."""
    alice = Caller("alice", frozenset(scopes), on_behalf_of)
    set_current(alice)
    try:
        method.rule.check(alice, method.path)
        check_owner(method, lambda _request, _context: OK)(queries.GetChequeRequest(cheque_id=owner), CONTEXT)
    except RpcError as error:
        return f"{error.reason}:{error.metadata['scope']}"
    return "OK"


@pytest.mark.parametrize(
    ("owner", "scopes", "answer"),
    [
        ("alice", (), "SCOPE_MISSING:test.do"),
        ("alice", ("test.own", "test.all"), "SCOPE_MISSING:test.do"),
        ("alice", ("test.do",), "SCOPE_MISSING:test.own"),
        ("alice", ("test.do", "other.own", "other.all"), "SCOPE_MISSING:test.own"),
        ("alice", ("test.do", "test.own"), "OK"),
        ("bob", ("test.do", "test.own"), "NOT_THE_OWNER:test.all"),
        ("", ("test.do", "test.own"), "NOT_THE_OWNER:test.all"),
        ("Alice", ("test.do", "test.own"), "NOT_THE_OWNER:test.all"),
        ("bob", ("test.do", "test.all"), "OK"),
        ("", ("test.do", "test.all"), "OK"),
        ("bob", ("test.do", "test.own", "test.all"), "OK"),
    ],
)
async def test_an_owner_in_the_request_must_be_the_caller(
    owner: str, scopes: tuple[str, ...], answer: str
) -> None:
    assert call(NAMED, owner, *scopes) == answer


async def test_a_caller_may_act_for_another_person_only_with_the_scope_for_it() -> None:
    scopes = ("test.do", "test.own")
    assert call(NAMED, "bob", *scopes, on_behalf_of="bob") == "SCOPE_MISSING:act.on-behalf"
    assert call(NAMED, "bob", *scopes, "act.on-behalf", on_behalf_of="bob") == "OK"
    assert call(NAMED, "alice", *scopes, "act.on-behalf", on_behalf_of="bob") == "OK"
    assert call(NAMED, "eve", *scopes, "act.on-behalf", on_behalf_of="bob") == "NOT_THE_OWNER:test.all"


async def test_objects_that_alone_know_their_owner_are_for_callers_who_reach_all() -> None:
    assert call(FOUND, "alice", "test.do", "test.own") == "SCOPE_MISSING:test.all"
    assert call(FOUND, "alice", "test.do", "test.all") == "OK"


@pytest.mark.parametrize("handlers", [["GetCheque"], ["GetCheque", "ListCheques", "DropCheques"]])
def test_methods_and_handlers_that_differ_prevent_the_start(handlers: list[str]) -> None:
    service = queries.DESCRIPTOR.services_by_name["QueryService"]
    with pytest.raises(StartError, match=r"ListCheques|DropCheques"):
        Routes([Service(service, dict.fromkeys(handlers, handler))], [], on_unknown)
