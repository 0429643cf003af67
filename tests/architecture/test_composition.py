"""Every context and every projection has its entry in the composition roots."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import command_server.__main__ as commands
import projector.__main__ as projections
import query_server.__main__ as queries
from operations.verify import verification
from operations.verify.checks import sagas as saga_checks
from process_manager.sagas import SAGAS
from projector.projection import Projection

ROOT = Path(__file__).parents[2]


def list_modules(folder: str) -> set[str]:
    return {module.name for module in iter_modules([str(ROOT / folder)])}


def list_contexts() -> set[str]:
    return {path.parts[-3] for path in (ROOT / "protos/diptych").glob("*/v1/command_service.proto")}


def test_every_context_has_protos_commands_and_queries() -> None:
    assert list_contexts() == list_modules("command_server/contexts") == list_modules("query_server/contexts")


def test_every_context_is_served() -> None:
    assert {context.name for context in commands.CONTEXTS} == list_modules("command_server/contexts")
    assert len(queries.CONTEXTS) == len(list_modules("query_server/contexts"))


@pytest.mark.parametrize(
    "name",
    sorted(
        f"{context}.{name}"
        for context in list_contexts()
        for name in list_modules(f"projector/projections/{context}")
    ),
)
def test_every_projection_is_listed(name: str) -> None:
    module = import_module(f"projector.projections.{name}")
    defined = [value for value in vars(module).values() if isinstance(value, Projection)]
    assert defined
    assert all(projection in projections.PROJECTIONS for projection in defined)


def test_every_queried_view_has_a_projection() -> None:
    queried = {query.view for context in queries.CONTEXTS for query in context.queries.values()}
    assert queried <= {projection.view for projection in projections.PROJECTIONS}


def test_every_aggregate_and_every_view_is_verified() -> None:
    verified = {aggregate.stream_type: aggregate for aggregate in verification.AGGREGATES}
    decided = {a.stream_type for context in commands.CONTEXTS for d in context.deciders for a in d.aggregates}
    assert set(verified) == decided
    views = {spec.view for aggregate in verified.values() for spec in aggregate.projections}
    assert views == {projection.view for projection in projections.PROJECTIONS}


def test_verify_knows_the_subscriptions_of_every_saga() -> None:
    assert {saga.name: saga.subscribes_to for saga in SAGAS} == saga_checks.SUBSCRIPTIONS
