"""The syntax trees of functions, without what has no effect: docstrings, annotations, comments and layout."""

import ast
import inspect
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

INEFFECTIVE_FIELDS = ("annotation", "returns", "type_comment", "kind", "type_params")
"""Fields of syntax nodes without an effect on what a function returns."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def find_source(function: types.FunctionType) -> Sequence[Definition]:
    """Return the definition of a function; several if lambdas share a line; none if there is no source."""
    module = sys.modules.get(function.__module__)
    if module is None or function.__code__.co_filename != getattr(module, "__file__", None):
        return ()
    name, line = function.__code__.co_name, function.__code__.co_firstlineno
    return [
        node
        for node in _parse(module)
        if _get_first_line(node) == line and getattr(node, "name", "<lambda>") == name
    ]


@cache
def _parse(module: types.ModuleType) -> Sequence[Definition]:
    """Return all definitions in a module."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, SyntaxError):
        return ()
    return [node for node in ast.walk(tree) if isinstance(node, Definition)]


def _get_first_line(node: Definition) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def list_fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yield the fields that have an effect."""
    for name, value in ast.iter_fields(node):
        if name in INEFFECTIVE_FIELDS or value is None or value == []:
            continue
        if name == "body" and isinstance(value, list) and _is_docstring(node, value[0]):
            value = value[1:]
        yield name, value


def _is_docstring(node: ast.AST, statement: ast.AST) -> bool:
    return (
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def dump(node: Any) -> str:
    """Return a text that identifies a tree in every version of Python that has these nodes."""
    if isinstance(node, ast.AST):
        fields = [f"{name}={dump(value)}" for name, value in list_fields(node)]
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(map(dump, node))}]"
    return repr(node)


@cache
def walk(node: ast.AST) -> Sequence[ast.AST]:
    """Return a node and all nodes in it that have an effect, in the order of the source."""
    nodes: list[ast.AST] = []
    pending: list[Any] = [node]
    while pending:
        match pending.pop():
            case list() as several:
                pending.extend(reversed(several))
            case ast.AST() as each:
                nodes.append(each)
                pending.extend(reversed([value for _, value in list_fields(each)]))
    return nodes


def resolve_names(node: ast.AST, scope: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values outside a function that it uses, with their names as in the source.

    Args:
        node: the function's definition.
        scope: the globals and closure variables.
    """
    local_names = _list_local_names(node)
    for each in walk(node):
        if isinstance(each, ast.ImportFrom):
            module = sys.modules.get(each.module or "")
            yield from ((alias.name, getattr(module, alias.name, None)) for alias in each.names)
        path = _get_path(each)
        if path and path[0] not in local_names and path[0] in scope:
            value = scope[path[0]]
            yield path[0], value
            for length, name in enumerate(path[1:], 2):
                if not isinstance(value, types.ModuleType | type):
                    break
                value = getattr(value, name, None)
                yield ".".join(path[:length]), value


def _get_path(node: ast.AST) -> list[str]:
    """Return the parts of a dotted name; empty for any other expression."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (path := _get_path(node.value)):
        return [*path, node.attr]
    return []


def _list_local_names(node: ast.AST) -> set[str]:
    names = {each.arg for each in walk(node) if isinstance(each, ast.arg)}
    names |= {n.id for n in walk(node) if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
    declared_global = {name for each in walk(node) if isinstance(each, ast.Global) for name in each.names}
    return (names | {n.name for n in walk(node) if isinstance(n, ast.MatchAs) and n.name}) - declared_global


def list_matched_fields(node: ast.AST, scope: Mapping[str, Any]) -> list[Sequence[str]]:
    """Return, for each class pattern, the names of the fields that it matches by their position."""
    patterns = [each for each in walk(node) if isinstance(each, ast.MatchClass) and each.patterns]
    classes = [dict(resolve_names(each.cls, scope)).get(ast.unparse(each.cls)) for each in patterns]
    return [
        getattr(cls, "__match_args__", ())[: len(pattern.patterns)]
        for pattern, cls in zip(patterns, classes, strict=True)
    ]


def list_attributes(node: ast.AST) -> set[str]:
    """Return the names of the attributes that a function uses."""
    names = set[str]()
    for each in walk(node):
        match each:
            case ast.Attribute():
                names.add(each.attr)
            case ast.MatchClass():
                names.update(each.kwd_attrs)
            case ast.Constant(value=str(text)) if text.isidentifier():
                names.add(text)  # for getattr, attrgetter and the like
    return names
