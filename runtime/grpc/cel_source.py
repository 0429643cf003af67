"""Translates CEL rules to Python: comparisons, `matches` and `has`, joined by `&&` and `||`.

For these the syntax of CEL is that of Python once `&&` is `and` and `||` is `or`, so Python's own parser
reads them. Everything else is for protovalidate.
"""

import ast
import re
from collections.abc import Callable

_PATTERN = re.compile(r"\^([\[\]A-Za-z0-9_{},|()/+*?-]+)\$")
"""Anchored patterns of characters, classes, groups and counts."""
_DIFFERENT = re.compile(r"\(\?|[+*?}]\+|\{,")
"""RE2 reads these differently, or refuses them."""
_OPERATORS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class NotCovered(Exception):
    """The rule is none that Python evaluates."""


def compile_pattern(pattern: str) -> Callable[[str], object]:
    """Return the function that matches texts with a pattern.

    Raises:
        NotCovered: RE2, which protovalidate uses, might read it in another way.
    """
    anchored = _PATTERN.fullmatch(pattern)
    if not anchored or _DIFFERENT.search(pattern):
        raise NotCovered(pattern)
    return re.compile(anchored[1]).fullmatch


def translate(expression: str, name_pattern: Callable[[str], str]) -> str:
    """Return a rule about `this` as a Python expression about `v`.

    Args:
        expression: in CEL.
        name_pattern: returns the name of the function that matches with a pattern.

    Raises:
        NotCovered: the rule is none that Python evaluates.
    """
    try:
        tree = ast.parse(expression.replace("&&", " and ").replace("||", " or "), mode="eval")
    except SyntaxError:
        raise NotCovered(expression) from None
    return _translate(tree.body, name_pattern)


def _translate(node: ast.expr, name_pattern: Callable[[str], str]) -> str:
    match node:
        case ast.BoolOp(operator, values):
            joint = " and " if isinstance(operator, ast.And) else " or "
            return f"({joint.join(_translate(value, name_pattern) for value in values)})"
        case ast.Compare(value, [operator], [ast.Constant(bound)]) if isinstance(operator, _OPERATORS):
            if type(bound) in (int, str):
                sign = ast.unparse(ast.Compare(ast.Name("x"), [operator], [ast.Name("y")]))[1:-1]
                return f"{_translate_value(value)}{sign}{bound!r}"
        case ast.Call(ast.Attribute(value, "matches"), [ast.Constant(str(pattern))], []):
            return f"{name_pattern(pattern)}({_translate_value(value)}) is not None"
        case ast.Call(ast.Name("has"), [ast.Attribute(ast.Name("this"), name)], []):
            return f"v.HasField({name!r})"
    raise NotCovered(ast.unparse(node))


def _translate_value(node: ast.expr) -> str:
    match node:
        case ast.Name("this"):
            return "v"
        case ast.Attribute(ast.Name("this"), name):
            return f"v.{name}"
    raise NotCovered(ast.unparse(node))
