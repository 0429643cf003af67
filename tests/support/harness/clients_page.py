"""The examples of docs/clients.md, and the targets that they call."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from devstack.stack import Stack

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/clients.md").read_text()


def read_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def load_page() -> Any:
    """Return the functions that the examples of the page define."""
    names: dict[str, Any] = {}
    for block in read_blocks("python"):
        exec(block, names)
    return SimpleNamespace(**names)


def list_addresses(stack: Stack, kind: Any) -> list[str]:
    return [process.address for process in stack.of(kind)]


def build_target(stack: Stack, kind: Any) -> str:
    """Return a target that reaches all servers of a kind."""
    return f"ipv4:{','.join(list_addresses(stack, kind))}"
