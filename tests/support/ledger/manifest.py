"""The ledger's manifest, which the entry point of its distribution names."""

from contracts.manifest import Manifest

MANIFEST = Manifest(
    "ledger",
    commands="tests.support.ledger.rules",
    projections="tests.support.ledger.projections",
    queries="tests.support.ledger.queries",
    sagas="tests.support.ledger.sagas",
    verification="tests.support.ledger.verification",
)
