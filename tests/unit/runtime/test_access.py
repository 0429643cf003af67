"""Access is denied by default: a server with a method without an access rule does not start."""

from typing import Any

import pytest
from diptych.access.v1 import access_pb2

from runtime.grpc import access
from runtime.grpc.routes import Routes, Service
from runtime.process.start_error import StartError
from tests.support.harness.made_service import made_service
from tests.support.ledger.stubs import commands, queries


async def handler(request: Any, context: Any) -> Any:
    return request


async def on_unknown(context: Any) -> None:
    raise AssertionError(context)


def test_a_methods_scope_is_read_from_its_proto() -> None:
    deposit = commands.DESCRIPTOR.services_by_name["CommandService"].methods_by_name["Deposit"]
    assert access.scope_of(deposit) == "ledger.write"


@pytest.mark.parametrize(("name", "rule"), [("Bare", None), ("Empty", access_pb2.Rule())])
def test_a_method_without_a_rule_prevents_the_start(name: str, rule: access_pb2.Rule | None) -> None:
    with pytest.raises(StartError, match=rf"test\.{name}\.Do has no option diptych\.access\.v1\.rule"):
        Routes([Service(made_service(name, rule=rule), {"Do": handler})], [], on_unknown)


def test_a_service_made_at_run_time_with_a_rule_is_accepted() -> None:
    ruled = made_service("Ruled", rule=access_pb2.Rule(scope="test.do"))
    Routes([Service(ruled, {"Do": handler})], [], on_unknown)


@pytest.mark.parametrize("handlers", [["GetCheque"], ["GetCheque", "ListCheques", "DropCheques"]])
def test_methods_and_handlers_that_differ_prevent_the_start(handlers: list[str]) -> None:
    service = queries.DESCRIPTOR.services_by_name["QueryService"]
    with pytest.raises(StartError, match=r"ListCheques|DropCheques"):
        Routes([Service(service, dict.fromkeys(handlers, handler))], [], on_unknown)
