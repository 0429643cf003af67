"""Inventory: products, their stock, and reservations of it."""

from contracts.manifest import Manifest

MANIFEST = Manifest(
    "inventory",
    commands="command_server.contexts.inventory",
    projections="projector.projections.inventory",
    queries="query_server.contexts.inventory",
    sagas="process_manager.sagas.inventory",
    verification="operations.verify.checks.inventory",
)
