"""The manifest of ticketing."""

from contracts.manifest import Manifest

MANIFEST = Manifest(
    "ticketing",
    commands="command_server.contexts.ticketing",
    projections="projector.projections.ticketing",
    queries="query_server.contexts.ticketing",
    sagas="process_manager.sagas.ticketing",
    verification="operations.verify.contexts.ticketing",
)
