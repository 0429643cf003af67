"""Every context has a manifest, and every manifest names all parts of its context."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import pytest

from command_server.kernel.context import Context, aggregate_types, command_types
from projector.projection import Projection
from query_server.service import QueryContext
from tests.support.harness.contexts import (
    AGGREGATES,
    CONTEXTS,
    MANIFESTS,
    PROJECTIONS,
    QUERY_CONTEXTS,
    SAGA_SPECS,
    SAGAS,
)

ROOT = Path(__file__).parents[2]
KINDS = {
    "commands": "command_server.contexts",
    "projections": "projector.projections",
    "queries": "query_server.contexts",
    "verification": "operations.verify.contexts",
}


def list_modules(package: str) -> set[str]:
    return {f"{package}.{module.name}" for module in iter_modules([str(ROOT / package.replace(".", "/"))])}


@pytest.mark.parametrize("kind", KINDS)
def test_every_module_of_a_context_is_in_its_manifest(kind: str) -> None:
    named = {getattr(manifest, kind) for manifest in MANIFESTS}
    # A module of checks adds the effects of sagas to the folds of its context.
    named |= {name.replace("operations.verify.checks.", "operations.verify.contexts.") for name in named}
    assert list_modules(KINDS[kind]) <= named


def test_every_command_service_has_a_context() -> None:
    paths = (ROOT / "protos/diptych").glob("*/v1/command_service.proto")
    assert {path.parts[-3] for path in paths} == {context.name for context in CONTEXTS}


def test_every_part_has_the_name_of_its_manifest() -> None:
    names = {manifest.name for manifest in MANIFESTS}
    assert {context.name for context in CONTEXTS} <= names
    assert {context.name for context in QUERY_CONTEXTS} <= names
    assert {projection.view.projection.partition(".")[0] for projection in PROJECTIONS} <= names
    assert {saga.name.partition(".")[0] for saga in SAGAS} <= names
    assert {aggregate.stream_type.partition(".")[0] for aggregate in AGGREGATES} <= names


@pytest.mark.parametrize(
    "name",
    sorted(name for context in list_modules("projector.projections") for name in list_modules(context)),
)
def test_every_projection_is_listed(name: str) -> None:
    defined = [value for value in vars(import_module(name)).values() if isinstance(value, Projection)]
    assert defined
    assert all(projection in PROJECTIONS for projection in defined)


@pytest.mark.parametrize("context", QUERY_CONTEXTS, ids=lambda context: context.name)
def test_every_method_of_a_query_service_has_a_handler(context: QueryContext) -> None:
    methods = {method.name: method.server_streaming for method in context.service.methods}
    handlers = dict.fromkeys(context.queries, False) | dict.fromkeys(context.watches, True)
    assert handlers == methods


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.name)
def test_every_method_of_a_command_service_has_a_decider(context: Context) -> None:
    assert command_types(context)
    assert aggregate_types([context])


def test_every_queried_view_has_a_projection() -> None:
    queried = {query.view for context in QUERY_CONTEXTS for query in context.queries.values()}
    assert queried <= {projection.view for projection in PROJECTIONS}


def test_every_aggregate_every_view_and_every_saga_is_verified() -> None:
    verified = {aggregate.stream_type: aggregate for aggregate in AGGREGATES}
    decided = {a.stream_type for context in CONTEXTS for d in context.deciders for a in d.aggregates}
    assert set(verified) == decided
    views = {spec.view for aggregate in verified.values() for spec in aggregate.projections}
    assert views == {projection.view for projection in PROJECTIONS}
    subscribed = {saga.name: {each.stream_type for each in saga.subscribes_to} for saga in SAGAS}
    assert subscribed == {spec.name: {spec.subscribes_to, *spec.keys} - {""} for spec in SAGA_SPECS}
    assert {saga.own_type for saga in SAGAS} == {spec.subscribes_to for spec in SAGA_SPECS}


@pytest.mark.parametrize(
    ("process", "kind"),
    [
        ("command_server", "commands"),
        ("query_server", "queries"),
        ("projector", "projections"),
        ("process_manager", "sagas"),
    ],
)
def test_a_process_imports_its_own_kind_of_modules_alone(process: str, kind: str) -> None:
    others = {"command_server", "query_server", "projector", "process_manager", "operations"} - {process}
    others.add("operations_server")
    program = f"""
import sys, {process}.__main__
from contracts.manifest import find_manifests
from runtime.process.contexts import load_modules
assert load_modules(find_manifests().values(), {kind!r})
print({others!r} & {{name.partition(".")[0] for name in sys.modules}} or "")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("", "")


def test_the_operations_server_imports_neither_the_command_line_nor_the_query_server() -> None:
    program = """
import sys, operations_server.__main__
print([name for name in sys.modules if name.startswith(("query_server", "operations.cli", "devstack"))] or "")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("", "")
