"""Fulfilment: the saga that brings an order to its end, and the record of its progress."""

from contracts.manifest import Manifest

MANIFEST = Manifest(
    "fulfilment",
    commands="command_server.contexts.fulfilment",
    projections="projector.projections.fulfilment",
    queries="query_server.contexts.fulfilment",
    sagas="process_manager.sagas.fulfilment",
    verification="operations.verify.checks.fulfilment",
)
