from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pkgutil import iter_modules
from types import ModuleType

import pytest

from contracts import contexts, manifest
from contracts.manifest import Manifest, context_of, find_manifests
from runtime.process.contexts import choose_contexts, load_modules, load_parts
from runtime.process.settings import Settings
from runtime.process.start_error import StartError

OWN = [module.name for module in iter_modules(contexts.__path__)]
"""The contexts of this repository."""
OUTSIDE, DOUBLE = Manifest("outside"), Manifest(OWN[0])
INVALID = "no manifest"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """The entry points of installed distributions."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(manifest, "entry_points", lambda group: EntryPoints(points).select(group=group))
    yield points


def entry_point(name: str, attribute: str) -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{attribute}", "diptych.contexts")


def test_contexts_of_other_distributions_are_found_by_entry_point(installed: list[EntryPoint]) -> None:
    installed.append(entry_point("outside", "OUTSIDE"))
    assert list(find_manifests()) == [*OWN, "outside"]
    assert choose_contexts(Settings(contexts=" outside,outside")) == [OUTSIDE]


@pytest.mark.parametrize(
    ("attribute", "message"),
    [
        ("INVALID", f"{__name__}:INVALID: not a contracts.manifest.Manifest"),
        ("MISSING", f"entry point x of diptych.contexts: module '{__name__}' has no attribute 'MISSING'"),
        ("DOUBLE", f"{__name__}:DOUBLE: contracts.contexts.{OWN[0]} is a context {OWN[0]} too"),
    ],
)
def test_an_invalid_manifest_has_an_error_of_one_line(
    installed: list[EntryPoint], attribute: str, message: str
) -> None:
    installed.append(entry_point("x", attribute))
    with pytest.raises(StartError) as error:
        choose_contexts(Settings())
    assert str(error.value) == message


def test_an_unknown_context_in_the_settings_is_named() -> None:
    with pytest.raises(StartError, match=rf"^DIPTYCH_CONTEXTS: unknown context dolls \(known: {OWN[0]}, "):
        choose_contexts(Settings(contexts=f"{OWN[0]},dolls"))


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("loyalty_part")
    monkeypatch.setitem(__import__("sys").modules, "loyalty_part", module)
    return module


def test_parts_are_loaded_from_one_value_or_a_sequence(part: ModuleType) -> None:
    manifests = [Manifest("loyalty", sagas="loyalty_part"), Manifest("without")]
    part.SAGAS = (1, 2)  # type: ignore[attr-defined]
    part.SAGA = 3  # type: ignore[attr-defined]
    assert load_parts(manifests, "sagas", "SAGAS", int) == [1, 2]
    assert load_parts(manifests, "sagas", "SAGA", int) == [3]


def test_a_part_that_is_missing_or_of_another_type_is_named(part: ModuleType) -> None:
    part.SAGAS = (1, "two")  # type: ignore[attr-defined]
    manifests = [Manifest("loyalty", sagas="loyalty_part")]
    for attribute in ("SAGAS", "MISSING"):
        with pytest.raises(StartError, match=f"^loyalty_part: {attribute} must be of int$"):
            load_parts(manifests, "sagas", attribute, int)
    with pytest.raises(StartError, match=r"^context loyalty: sagas: No module named 'nowhere'$"):
        load_modules([Manifest("loyalty", sagas="nowhere")], "sagas")


@pytest.mark.parametrize(
    ("service", "context"),
    [
        ("diptych.loyalty.v1.QueryService", "loyalty"),
        ("loyalty.v1.QueryService", "loyalty"),
        ("acme.shop.loyalty.v2.CommandService", "loyalty"),
    ],
)
def test_the_context_of_a_service_precedes_its_version(service: str, context: str) -> None:
    assert context_of(service) == context
