"""The table of log lines in docs/operations.md has every warning and error of the code, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "command_server",
    "contracts",
    "operations",
    "operations_server",
    "process_manager",
    "projector",
    "query_server",
    "runtime",
)
LEVELS = {"warning", "error", "exception"}
COLLECTORS = {"RepeatedErrors", "LimitedErrors"}
"""Classes that log a message which they get."""
BY_LEVEL = {"_log", "render"}
"""Functions that get the level as an argument before the message."""
PASS_ON = "runtime/process/logs/repeated_errors.py"
"""The module that logs the messages of others."""


def is_writer(node: ast.AST, aliases: set[str]) -> bool:
    """Return whether a call of this expression logs a warning or an error."""
    if isinstance(node, ast.Attribute):
        of_log = re.search(r"(^|[._])log(_own)?$", ast.unparse(node.value))
        return node.attr in COLLECTORS or bool(of_log and node.attr in LEVELS)
    return isinstance(node, ast.Name) and node.id in COLLECTORS | aliases


def get_name(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]


def find_aliases(tree: ast.AST) -> set[str]:
    """Return the names to which a writer is assigned without a call."""
    aliases: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            called = {each.func for each in ast.walk(node.value) if isinstance(each, ast.Call)}
            if any(is_writer(each, set()) for each in ast.walk(node.value) if each not in called):
                aliases.add(node.targets[0].id)
    return aliases


def find_messages(source: str) -> Iterator[str]:
    """Yield the messages of the warnings and errors of a module, without what follows a semicolon.

    Raises:
        AssertionError: a message is no constant.
    """
    tree = ast.parse(source)
    aliases = find_aliases(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
        if is_writer(node.func, aliases):
            assert texts, f"the message is no constant: {ast.unparse(node)}"
            yield str(texts[0]).partition(";")[0]
        elif get_name(node.func) in BY_LEVEL and LEVELS & set(texts):
            yield str(texts[-1]).partition(";")[0]


def list_messages() -> set[str]:
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {
        message
        for path in paths
        if str(path.relative_to(ROOT)) != PASS_ON
        for message in find_messages(path.read_text())
    }


def list_documented() -> set[str]:
    text = (ROOT / "docs/operations.md").read_text()
    section = text.partition("\n## Log lines\n")[2].partition("\n## ")[0]
    cells = (line.split("|")[1] for line in section.splitlines() if line.startswith('| "'))
    return {message for cell in cells for message in re.findall(r'"([^"]+)"', cell)}


def test_every_warning_and_error_is_in_the_table_of_log_lines() -> None:
    messages, documented = list_messages(), list_documented()
    assert len(messages) > 50
    assert sorted(messages - documented) == []
    assert sorted(documented - messages) == []


def test_messages_are_found_however_they_are_logged() -> None:
    source = """
log.info("no")
log.warning("direct; more", error=1)
write = log.warning if failed else log.info
write("by a name")
limit = partial(logs.LimitedErrors, log, projection=name)
errors = [limit("partly"), logs.RepeatedErrors(log, "repeated")]
_log("warning", name, "by its level", {})
"""
    assert set(find_messages(source)) == {"direct", "by a name", "partly", "repeated", "by its level"}
