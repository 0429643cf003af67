"""Writes the tables of all methods into docs/access.md: `python -m devstack.describe_access`."""

from collections.abc import Collection
from pathlib import Path

from diptych.operations.v1 import operations_service_pb2 as operations
from diptych.sagas.v1 import query_service_pb2 as sagas
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from command_server.kernel.context import Context
from contracts.manifest import find_manifests
from query_server.service import QueryContext, list_comparing
from runtime.grpc.access import rule_of
from runtime.process.contexts import load_parts

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/access.md"
TITLE = "## Every method\n"
HEAD = "| method | scope | on what |\n| --- | --- | --- |"

Declared = tuple[ServiceDescriptor, Collection[str]]
"""A service, and its methods that compare the owner of an object with the caller."""


def find_services() -> list[Declared]:
    """Return the services of all contexts of this repository, and those of sagas and operations."""
    manifests = [each for each in find_manifests().values() if each.commands.startswith("command_server.")]
    found: list[Declared] = []
    for manifest in manifests:
        for commands in load_parts([manifest], "commands", "CONTEXT", Context):
            found += [(service, list(service.methods_by_name)) for service in commands.services]
        for queries in load_parts([manifest], "queries", "CONTEXT", QueryContext):
            found.append((queries.service, list_comparing(queries)))
    found.append((sagas.DESCRIPTOR.services_by_name["QueryService"], ()))
    found.append((operations.DESCRIPTOR.services_by_name["OperationsService"], ()))
    return found


def write_tables() -> str:
    """Return a table for each service, under its name."""
    parts = []
    for service, comparing in find_services():
        rows = [write_row(method, compares=method.name in comparing) for method in service.methods]
        parts.append("\n".join([f"### {service.full_name.removeprefix('diptych.')}\n", HEAD, *rows]))
    return "\n\n".join(parts) + "\n"


def write_row(method: MethodDescriptor, *, compares: bool) -> str:
    rule = rule_of(method)
    if not rule.owner:
        what = "any"
    elif rule.is_in_request or compares:
        what = f"`own`: `{rule.owner}` of the {'request' if rule.is_in_request else 'object'}; `all`"
    else:
        what = "`all`"
    return f"| `{method.name}` | `{rule.scope}` | {what} |"


def read_tables() -> str:
    """Return the tables that the page has."""
    return PAGE.read_text().split(TITLE)[1].split("\n## ")[0].partition("\n\n")[2]


def main() -> None:
    """Replace the tables."""
    before, after = PAGE.read_text().split(TITLE)
    intro = after.partition("\n\n")[0]
    PAGE.write_text(f"{before}{TITLE}{intro}\n\n{write_tables()}")


if __name__ == "__main__":
    main()
