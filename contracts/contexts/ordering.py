"""Ordering: orders from placing to delivery, cancellation or return."""

from contracts.manifest import Manifest

MANIFEST = Manifest(
    "ordering",
    commands="command_server.contexts.ordering",
    projections="projector.projections.ordering",
    queries="query_server.contexts.ordering",
    verification="operations.verify.contexts.ordering",
)
