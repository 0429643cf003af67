"""A context or projection that was written, but forgotten in its composition root, is noticed."""

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

import command_server.__main__ as commands
import projector.__main__ as projecting
import query_server.__main__ as queries
from operations.verify import verification
from operations.verify.checks import sagas as verified
from process_manager.sagas import SAGAS
from projector.projection import Projection

ROOT = Path(__file__).parents[2]


def modules(folder: str) -> set[str]:
    return {module.name for module in iter_modules([str(ROOT / folder)])}


def protos() -> set[str]:
    return {path.parts[-3] for path in (ROOT / "protos/diptych").glob("*/v1/command_service.proto")}


def test_every_context_has_protos_commands_and_queries() -> None:
    assert protos() == modules("command_server/contexts") == modules("query_server/contexts")


def test_every_context_is_served() -> None:
    assert {context.name for context in commands.CONTEXTS} == modules("command_server/contexts")
    assert len(queries.CONTEXTS) == len(modules("query_server/contexts"))


@pytest.mark.parametrize(
    "name",
    sorted(
        f"{context}.{name}" for context in protos() for name in modules(f"projector/projections/{context}")
    ),
)
def test_every_projection_runs(name: str) -> None:
    module = import_module(f"projector.projections.{name}")
    written = [value for value in vars(module).values() if isinstance(value, Projection)]
    assert written
    assert all(projection in projecting.PROJECTIONS for projection in written)


def test_every_view_that_is_read_is_projected() -> None:
    read = {query.view for context in queries.CONTEXTS for query in context.queries.values()}
    assert read <= {projection.view for projection in projecting.PROJECTIONS}


def test_every_aggregate_and_every_view_is_verified() -> None:
    known = {aggregate.stream_type: aggregate for aggregate in verification.AGGREGATES}
    decided = {a.stream_type for context in commands.CONTEXTS for d in context.deciders for a in d.aggregates}
    assert set(known) == decided
    views = {spec.view for aggregate in known.values() for spec in aggregate.projections}
    assert views == {projection.view for projection in projecting.PROJECTIONS}


def test_verify_knows_what_every_saga_hears() -> None:
    assert {saga.name: saga.subscribes_to for saga in SAGAS} == verified.SUBSCRIPTIONS
