"""Each import contract can fail: a violation planted in a copy of the tree is refused."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "contracts",
    "runtime",
    "command_server",
    "projector",
    "query_server",
    "process_manager",
    "operations",
    "operations_server",
    "devstack",
    "diptych_testing",
)

VIOLATIONS = {
    "The processes share contracts, not code": ("projector/runner.py", "import query_server.view_reader"),
    "Contracts and plumbing import no process": (
        "runtime/backoff.py",
        "import command_server.kernel.decider",
    ),
    "Contracts import no plumbing": ("contracts/streams.py", "import runtime.backoff"),
    "No process imports the operator's or the developer's tools": (
        "projector/runner.py",
        "import devstack.servers",
    ),
    "The operator's tools work without the development stack": (
        "operations_server/service.py",
        "import devstack.tcp_ports",
    ),
    "The operations server works without the command line and the query server": (
        "operations_server/service.py",
        "import query_server.view_reader",
    ),
    "A rehearsal folds with the code that runs, and with nothing of verify": (
        "operations/rehearse/__init__.py",
        "import operations.verify.model",
    ),
    "Verify shares no code with what it verifies": (
        "operations/verify/contexts/ordering.py",
        "import operations.projections",  # which imports the projections
    ),
    "Verify's sources return data and compare nothing": (
        "operations/verify/sources/redis_reader.py",
        "import operations.verify.checks.views",
    ),
    "Verify's folds know the model alone": (
        "operations/verify/contexts/ordering.py",
        "import operations.verify.sources",
    ),
    "The client imports the stubs alone": ("diptych_client/session.py", "import runtime.backoff"),
    "Contexts do not import each other": (
        "command_server/contexts/planted.py",
        "import command_server.contexts.ordering.domain.order",
    ),
    "A domain knows the standard library and the kernel's vocabulary alone": (
        "command_server/contexts/ordering/domain/order.py",
        "import contracts.streams",
    ),
    "Kernel, domains, projections and sagas know no server and no telemetry": (
        "command_server/kernel/money.py",
        "import runtime.process.logs",
    ),
    "The kernel knows no adapter, no context and no edge": (
        "command_server/kernel/batch.py",
        "import command_server.postgres.event_store",
    ),
    "The read side knows neither the write model nor its commands": (
        "query_server/wire_format.py",
        "import diptych.ordering.v1.command_service_pb2",
    ),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "generated/diptych", copy / "diptych")
    shutil.copytree(ROOT / "client/diptych_client", copy / "diptych_client")
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def contracts(tree: Path) -> dict[str, bool]:
    """Return whether each contract is kept."""
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], cwd=tree, capture_output=True, text=True, check=False)
    verdicts = re.findall(r"^(.+) (KEPT|BROKEN)\b", result.stdout, re.MULTILINE)
    kept = {contract: verdict == "KEPT" for contract, verdict in verdicts}
    assert kept, result.stdout + result.stderr
    return kept


def test_every_contract_is_kept_and_has_its_violation_here(tree: Path) -> None:
    assert contracts(tree) == dict.fromkeys(VIOLATIONS, True)


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_planted_violation_is_refused(tree: Path, contract: str) -> None:
    file, violation = VIOLATIONS[contract]
    path = tree / file
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{violation}\n")
    try:
        assert not contracts(tree)[contract]
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)
