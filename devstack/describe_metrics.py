"""Writes the table of all metrics into docs/operations.md: `python -m devstack.describe_metrics`."""

from importlib import import_module
from pathlib import Path

from runtime.telemetry.instruments import Counter, Gauge, Histogram

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/operations.md"
TITLE = "**All metrics.**"
HEAD = "| metric | process | kind | unit | attributes | meaning |\n| --- | --- | --- | --- | --- | --- |"
PROCESSES = {
    "runtime.telemetry": "all",
    "runtime.grpc": "servers",
    "command_server": "command server",
    "command_server.relay": "relay",
    "projector": "projector",
    "process_manager": "process manager",
    "operations_server": "operations server",
    "operations.verify": "verifier",
}
"""The packages that declare metrics in a module `metrics`, and their processes."""

Declared = tuple[str, Counter | Histogram | Gauge]
"""A metric and its process."""


def find_metrics() -> list[Declared]:
    """Return all metrics in the order of their declaration."""
    found: list[Declared] = []
    for package, process in PROCESSES.items():
        values = vars(import_module(f"{package}.metrics")).values()
        found += [(process, each) for each in values if isinstance(each, Counter | Histogram | Gauge)]
    return found


def write_row(process: str, metric: Counter | Histogram | Gauge) -> str:
    names = ", ".join(f"`{name}`" for name in metric.attributes)
    kind = type(metric).__name__.lower()
    return f"| `{metric.name}` | {process} | {kind} | {metric.unit} | {names} | {metric.description} |"


def read_rows() -> list[str]:
    """Return the rows that the page has."""
    section = PAGE.read_text().split(TITLE)[1].split("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| `")]


def main() -> None:
    """Replace the table."""
    before, after = PAGE.read_text().split(TITLE)
    intro, _, following = after.split("\n\n", 2)
    rows = "\n".join(write_row(*declared) for declared in find_metrics())
    PAGE.write_text(f"{before}{TITLE}{intro}\n\n{HEAD}\n{rows}\n\n{following}")


if __name__ == "__main__":
    main()
