"""The code that is rehearsed: that of the installed release, by the streams that it reads."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from command_server.kernel.context import AggregateType, CommandType, Context, aggregate_types, command_types
from process_manager.saga import Saga
from projector.projection import Projection
from runtime.process.contexts import choose_contexts, load_parts
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting


@dataclass(frozen=True)
class InstalledCode:
    """The aggregates and projections by stream type, the commands, and the sagas."""

    aggregates: Mapping[str, AggregateType]
    projections: Mapping[str, Sequence[Projection[Any]]]
    commands: Mapping[str, CommandType]
    """By the full names of their methods."""
    sagas: Sequence[Saga[Any]]

    @property
    def stream_types(self) -> list[str]:
        return sorted({*self.aggregates, *self.projections})

    def list_projections(self) -> list[Projection[Any]]:
        """Return every projection once."""
        return list({id(each): each for found in self.projections.values() for each in found}.values())


def load_code(settings: Settings, projections: Collection[str] = ()) -> InstalledCode:
    """Import the code of the chosen contexts.

    Args:
        settings: choose the contexts.
        projections: names of projections to rehearse alone; none for everything.

    Raises:
        StartError: a context is invalid, or there is no such projection.
    """
    manifests = choose_contexts(settings)
    by_type: dict[str, list[Projection[Any]]] = {}
    known = load_parts(manifests, "projections", "PROJECTIONS", Projection)
    if unknown := set(projections).difference(each.view.projection for each in known):
        names = ", ".join(sorted(each.view.projection for each in known))
        raise InvalidSetting(f"--projection: unknown projection {min(unknown)} (known: {names})")
    for projection in known:
        if not projections or projection.view.projection in projections:
            for stream_type in projection.view.source_streams:
                by_type.setdefault(stream_type, []).append(projection)
    if projections:
        return InstalledCode({}, by_type, {}, ())
    contexts = load_parts(manifests, "commands", "CONTEXT", Context)
    commands = {name: kind for context in contexts for name, kind in command_types(context).items()}
    sagas = load_parts(manifests, "sagas", "SAGAS", Saga)
    return InstalledCode(aggregate_types(contexts), by_type, commands, sagas)
