"""Fulfilment: the saga that brings an order to its end; it has no aggregates of its own."""

from contracts.manifest import Manifest

MANIFEST = Manifest(
    "fulfilment",
    sagas="process_manager.sagas.fulfilment",
    saga_queries="process_manager.sagas.fulfilment.queries",
    verification="operations.verify.checks.fulfilment",
)
