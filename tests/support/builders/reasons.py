"""The reasons that rules give callers, read from the source: every `Rejected` and `RpcError` of a context."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from grpc import StatusCode

from command_server.kernel.field_hints import FIELD_INVALID

ROOT = Path(__file__).parents[3]
STATUS_OF_CALL = {
    "Rejected": StatusCode.FAILED_PRECONDITION,
    "of_rule": StatusCode.FAILED_PRECONDITION,
    "NotFound": StatusCode.NOT_FOUND,
    "not_found": StatusCode.NOT_FOUND,
    "AlreadyExists": StatusCode.ALREADY_EXISTS,
}
"""The names by which a rule's error is made. `of_rule`, `not_found` and the read side's `NotFound` take the
context first."""
REASON_OF_FIELD_RULE = {"at_least": 1, "at_most": 1, "FieldRule": 2}
"""The position of the reason among the arguments of field rules, which `check_fields` raises for them."""
REASON = r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+|_<STATE>)*"
"""A reason; `<STATE>` stands for the name of a state of the aggregate."""

Reasons = Mapping[StatusCode, set[str]]


def find_rule_reasons(*paths: Path) -> Reasons:
    """Return the reasons of the rules in files and folders, by status.

    Raises:
        ValueError: a reason is computed in a way that this module does not follow.
    """
    reasons: dict[StatusCode, set[str]] = defaultdict(set)
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            module = ast.parse(file.read_text())
            for node in ast.walk(module):
                if isinstance(node, ast.Call) and (status := STATUS_OF_CALL.get(_name(node.func))):
                    reasons[status].update(_find_reasons(node, module, file))
                elif isinstance(node, ast.Call):
                    reasons[StatusCode.FAILED_PRECONDITION].update(_find_reason_of_field_rule(node))
    return reasons


def _find_reason_of_field_rule(call: ast.Call) -> Iterator[str]:
    position = REASON_OF_FIELD_RULE.get(_name(call.func), len(call.args))
    for argument in call.args[position:]:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def _name(node: ast.expr) -> str:
    return getattr(node, "id", getattr(node, "attr", ""))


def _find_reasons(call: ast.Call, module: ast.Module, file: Path) -> set[str]:
    leads_with_context = len(call.args) > 1  # rules give their details as keyword arguments
    try:
        return set(_resolve(call.args[leads_with_context], module))
    except (LookupError, ValueError) as error:
        raise ValueError(f"{file}:{call.lineno}: cannot tell the reason") from error


def _resolve(node: ast.expr, module: ast.Module) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(reason)):
            yield reason
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "<STATE>" for part in parts)
        case ast.IfExp(body=body, orelse=orelse):
            yield from _resolve(body, module)
            yield from _resolve(orelse, module)
        case ast.Call(func=ast.Name(id=name)):
            yield from _resolve_returned(name, module)
        case ast.Name(id=name):
            yield from _resolve_constant(name, module)
        case ast.Attribute(value=ast.Name(id="rule"), attr="reason"):  # its default; others are found above
            yield FIELD_INVALID
        case _:
            raise ValueError(ast.unparse(node))


def _resolve_returned(name: str, module: ast.Module) -> Iterator[str]:
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == name]
    for node in ast.walk(functions[0]):
        if isinstance(node, ast.Return) and node.value is not None:
            yield from _resolve(node.value, module)


def _resolve_constant(name: str, module: ast.Module) -> Iterator[str]:
    values = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and [_name(target) for target in node.targets] == [name]
    ]
    yield from _resolve(values[0], module)


def find_edge_reasons(*packages: Path) -> set[str]:
    """Return the reasons of every `RpcError` and `CallLimit` that names its reason in place."""
    return {
        node.args[0].value
        for package in packages
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and _name(node.func) in ("RpcError", "CallLimit")
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }
