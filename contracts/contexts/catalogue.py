"""The manifest of catalogue."""

from contracts.manifest import Manifest

MANIFEST = Manifest(
    "catalogue",
    commands="command_server.contexts.catalogue",
    projections="projector.projections.catalogue",
    queries="query_server.contexts.catalogue",
    verification="operations.verify.contexts.catalogue",
)
