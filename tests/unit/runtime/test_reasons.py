"""docs/clients.md lists every reason that a caller can get, each with its status, and no other."""

import re
from pathlib import Path

import pytest
from grpc import StatusCode

from runtime.grpc.rpc_error import STATUS
from tests.support.builders.reasons import REASON, ROOT, find_edge_reasons, find_rule_reasons

PAGE = (ROOT / "docs/clients.md").read_text()
SECTION = PAGE.split("\n## Every reason\n")[1].split("\n## ")[0]
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in SECTION.splitlines() if "|" in line]
LISTED = {row[0].strip("`"): row[1].strip("`") for row in ROWS if re.fullmatch(f"`{REASON}`", row[0])}
RULE_STATUSES = (StatusCode.FAILED_PRECONDITION, StatusCode.NOT_FOUND, StatusCode.ALREADY_EXISTS)
"""The statuses of rules, in the order of the columns of their table."""
SOURCES = {
    "ordering": ("command_server/contexts/ordering", "query_server/contexts/ordering"),
    "inventory": ("command_server/contexts/inventory", "query_server/contexts/inventory.py"),
    "banking": ("command_server/contexts/banking", "query_server/contexts/banking.py"),
    "catalogue": ("command_server/contexts/catalogue", "query_server/contexts/catalogue"),
    "customers": ("command_server/contexts/customers", "query_server/contexts/customers.py"),
    "ticketing": ("command_server/contexts/ticketing", "query_server/contexts/ticketing.py"),
    "fulfilment": ("command_server/contexts/fulfilment", "query_server/contexts/fulfilment.py"),
    "sagas": ("process_manager/queries/query_service.py", "process_manager/queries/saga_queries.py"),
    "operations": ("operations_server",),
    "any": ("command_server/kernel",),
}
"""The contexts that the page describes, and where their rules are."""
PROCESSES = ("runtime", "command_server", "query_server", "process_manager", "operations_server")


def test_the_page_lists_every_reason_of_the_infrastructure_with_its_status() -> None:
    assert {reason: code.name for reason, code in STATUS.items()} == LISTED


def test_every_error_has_a_listed_reason() -> None:
    assert find_edge_reasons(*(ROOT / process for process in PROCESSES)) - set(STATUS) == set()


def read_listed_rules(context: str) -> dict[StatusCode, set[str]]:
    label = "any context" if context == "any" else f"`{context}.diptych`"
    (cells,) = [row[1:] for row in ROWS if row[0] == label]
    found = [set(re.findall(f"`({REASON})`", cell)) for cell in cells]
    return dict(zip(RULE_STATUSES, found, strict=True))


@pytest.mark.parametrize("context", SOURCES)
def test_the_page_lists_every_reason_of_the_rules(context: str) -> None:
    reasons = find_rule_reasons(*(ROOT / source for source in SOURCES[context]))
    assert {status: reasons.get(status, set()) for status in RULE_STATUSES} == read_listed_rules(context)


def test_no_context_that_has_a_page_is_left_out() -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    contexts = {path.parents[1].name for path in (ROOT / "protos/diptych").glob("*/v1/*service.proto")}
    assert pages & contexts <= set(SOURCES)


def test_a_reason_that_is_computed_elsewhere_is_noticed(tmp_path: Path) -> None:
    module = tmp_path / "rules.py"
    module.write_text("def decide(facts):\n    raise Rejected(facts['reason'])\n")
    with pytest.raises(ValueError, match="cannot tell the reason"):
        find_rule_reasons(module)
