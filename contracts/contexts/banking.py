"""Banking: accounts, holds on their money, and transfers between them."""

from contracts.manifest import Manifest

MANIFEST = Manifest(
    "banking",
    commands="command_server.contexts.banking",
    projections="projector.projections.banking",
    queries="query_server.contexts.banking",
    sagas="process_manager.sagas.banking",
    verification="operations.verify.contexts.banking",
)
