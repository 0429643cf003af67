"""The manifest of a bounded context: the modules that each process imports of it.

How it works. A manifest names modules and imports none, so each process imports its own kind alone. The
manifests of this repository are the modules of `contracts.contexts`. Other repositories declare theirs as
entry points of their distributions:

    [project.entry-points."diptych.contexts"]
    loyalty = "loyalty.manifest:MANIFEST"
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from contracts import contexts

ENTRY_POINTS = "diptych.contexts"
"""The group of the entry points."""


@dataclass(frozen=True)
class Manifest:
    """A bounded context and its modules. A context lacks the parts whose modules are empty."""

    name: str
    """The first part of its stream types, and its name for `--contexts`."""
    commands: str = ""
    """The module with `CONTEXT: command_server.kernel.context.Context`."""
    projections: str = ""
    """The module with `PROJECTIONS: Sequence[projector.projection.Projection]`."""
    queries: str = ""
    """The module with `CONTEXT: query_server.service.QueryContext`."""
    sagas: str = ""
    """The module with `SAGAS: Sequence[process_manager.saga.Saga]`."""
    verification: str = ""
    """The module with `AGGREGATES: Sequence[operations.verify.model.Aggregate]`, and with
    `SAGAS: Sequence[operations.verify.model.SagaSpec]` if the context has sagas."""


def context_of(service: str) -> str:
    """Return the context of a service's full name: in `diptych.ordering.v1.QueryService` it is `ordering`."""
    *_, context, _version, _name = ["", *service.split(".")]
    return context


def find_manifests() -> dict[str, Manifest]:
    """Return the manifests of all installed contexts by name.

    Raises:
        ValueError: an entry point is not a manifest, or two contexts have the same name.
    """
    manifests: dict[str, Manifest] = {}
    sources: dict[str, str] = {}
    for source, manifest in _list_manifests():
        if not isinstance(manifest, Manifest):
            raise ValueError(f"{source}: not a contracts.manifest.Manifest")
        if manifest.name in manifests:
            raise ValueError(f"{source}: {sources[manifest.name]} is a context {manifest.name} too")
        manifests[manifest.name], sources[manifest.name] = manifest, source
    return manifests


def _list_manifests() -> Iterator[tuple[str, object]]:
    """Yield each manifest after its source."""
    for module in iter_modules(contexts.__path__, f"{contexts.__name__}."):
        yield module.name, import_module(module.name).MANIFEST
    for entry_point in sorted(entry_points(group=ENTRY_POINTS), key=lambda entry_point: entry_point.name):
        try:
            yield entry_point.value, entry_point.load()
        except (ImportError, AttributeError) as error:
            raise ValueError(f"entry point {entry_point.name} of {ENTRY_POINTS}: {error}") from error
