"""Purchase: the saga between ticketing and banking that pays for seats; it has no aggregates of its own."""

from contracts.manifest import Manifest

MANIFEST = Manifest(
    "purchase",
    sagas="process_manager.sagas.purchase",
    verification="operations.verify.checks.purchase",
)
