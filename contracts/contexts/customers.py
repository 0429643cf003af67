"""Customers: people with a name, addresses and an email address of their own."""

from contracts.manifest import Manifest

MANIFEST = Manifest(
    "customers",
    commands="command_server.contexts.customers",
    projections="projector.projections.customers",
    queries="query_server.contexts.customers",
    verification="operations.verify.contexts.customers",
)
