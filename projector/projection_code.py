"""The version of a projection's code: it tells whether the views were built by what is installed now.

It covers the modules of the projection and what they import from their package and from the contracts, and
the protos of the view and its events; not comments, and not the projector itself, whose releases build the
same views.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from types import ModuleType
from typing import Any

from projector.projection import Projection


@cache
def compute_projection_version(projection: Projection[Any]) -> str:
    """Return sixteen hex digits that identify the projection's code."""
    result = sha256()
    for name, module in sorted(_find_modules(projection).items()):
        result.update(name.encode() + ast.dump(_without_docstrings(inspect.getsource(module))).encode())
    messages = {projection.view.message.DESCRIPTOR, *(event.DESCRIPTOR for event in projection.handlers)}
    for proto in sorted({message.file.serialized_pb for message in messages}):
        result.update(proto)
    return result.hexdigest()[:16]


def _find_modules(projection: Projection[Any]) -> dict[str, ModuleType]:
    """Return the modules of a projection's functions, and those of their package that these use."""
    waiting = {function.__module__ for function in projection.functions}
    packages = {f"{name.rpartition('.')[0]}." for name in waiting} | {
        "contracts.contexts.",
        "contracts.events.",
    }
    found: dict[str, ModuleType] = {}
    while waiting:
        name = waiting.pop()
        found[name] = module = sys.modules[name]
        for used in _list_used(module):
            if used not in found and used.startswith(tuple(packages)):
                waiting.add(used)
    return found


def _list_used(module: ModuleType) -> Iterator[str]:
    for value in vars(module).values():
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str) and name in sys.modules:
            yield name


def _without_docstrings(source: str) -> ast.Module:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return tree
