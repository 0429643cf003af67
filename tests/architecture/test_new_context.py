"""`make new-context` in a copy of the repository: its files pass all checks, and errors change nothing."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from operations.new_context.__main__ import main
from operations.new_context.files import INSIDE, OUTSIDE
from operations.new_context.naming import MAX_LENGTH, Names
from runtime.process.start_error import StartError
from tests.support.harness.repository_copies import ROOT, assert_passes, copy_repository, run

READY = (".venv/.ready", ".cache/protos/.ready")
NEW = Names("probe_context", "probe")
"""Names that no context of a reader has."""
QUOTED = Names("loyalty", "member")
"""The names in the documentation."""
EXAMPLES = ("projector/projections/ordering/order.py", "query_server/contexts/ordering/__init__.py")
"""Files that the documentation quotes beside those of the new context."""
ACCESS_PAGE = "docs/access.md"
"""Lists the rules of all methods."""
PYTHON = [path for path in INSIDE.list_paths(NEW) if path.endswith(".py")]


def make(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    up_to_date = [option for file in READY for option in ("-o", file)]
    return run(tree, "make", *up_to_date, "new-context", *arguments)


def read_files(tree: Path) -> dict[str, bytes]:
    skipped = {".venv", ".cache", ".ruff_cache", "__pycache__"}
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file() and skipped.isdisjoint(path.relative_to(tree).parts)
    }


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    copy_repository(tree)
    return tree


@pytest.fixture(scope="module")
def tree(untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second copy, with a new context."""
    tree = tmp_path_factory.mktemp("with") / "tree"
    shutil.copytree(untouched, tree, symlinks=True)
    result = make(tree, f"NAME={NEW.context}", f"AGGREGATE={NEW.aggregate}")
    assert result.returncode == 0, result.stdout + result.stderr
    for path in INSIDE.list_paths(NEW):
        assert f"  {path}\n" in result.stdout
    return tree


def test_it_writes_its_files_and_its_rules_and_changes_no_other(tree: Path, untouched: Path) -> None:
    before, after = read_files(untouched), read_files(tree)
    new = after.keys() - before.keys()
    stubs = {
        f"{kind}_pb2{end}"
        for kind in ("command_service", "events", "query_service", "types")
        for end in (".py", ".pyi", "_grpc.py", "_grpc.pyi")
    }
    events = {
        f"tests/contract/events/diptych.{NEW.context}.v1.Probe{what}.json"
        for what in ("Added", "Renamed", "Removed")
    }
    assert new == {
        *INSIDE.list_paths(NEW),
        *events,
        *(f"generated/diptych/{NEW.context}/v1/{stub}" for stub in stubs),
    }
    assert {path for path in before if after.get(path) != before[path]} == {ACCESS_PAGE}
    assert f"### {NEW.context}.v1.QueryService" in after[ACCESS_PAGE].decode()


def test_its_tests_and_the_composition_tests_pass(tree: Path) -> None:
    own = [path for path in INSIDE.list_paths(NEW) if path.startswith("tests/")]
    assert own
    composition = ("tests/architecture/test_composition.py", "tests/contract/test_recorded_events.py")
    assert_passes(tree, "pytest", "-q", "-p", "no:cacheprovider", *own, *composition)


def test_ruff_and_buf_find_no_error(tree: Path) -> None:
    assert_passes(tree, "ruff", "check", "--no-cache", *PYTHON)
    assert_passes(tree, "ruff", "format", "--no-cache", "--check", *PYTHON)
    assert_passes(tree, "buf", "lint")
    assert_passes(tree, "buf", "format", "--diff", "--exit-code", "protos")


def test_mypy_finds_no_error(tree: Path) -> None:
    # A cache of its own, because the cached results of the changed files would be wrong for the repository.
    cache = ROOT / ".cache/mypy-new-context"
    if not cache.exists() and (ROOT / ".mypy_cache").exists():
        shutil.copytree(ROOT / ".mypy_cache", cache)  # saves most of the first run: mypy compares contents
    assert_passes(tree, "mypy", "--cache-dir", str(cache), *PYTHON)


def test_the_import_contracts_are_kept(tree: Path) -> None:
    assert_passes(tree, "lint-imports", "--no-cache")


def test_the_stubs_match_the_protos(tree: Path) -> None:
    assert_passes(tree, "make", "-o", READY[0], "-o", READY[1], "generated-matches")


def test_the_documentation_quotes_the_written_files(tmp_path: Path) -> None:
    page = (ROOT / "docs/adding-a-context.md").read_text()
    quotes = re.findall(r"^ *```(?:python|proto)\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    assert len(quotes) > 5
    write_formatted(tmp_path, QUOTED)
    files = [*(tmp_path / path for path in INSIDE.list_paths(QUOTED)), *(ROOT / path for path in EXAMPLES)]
    written = "".join(remove_indents(file.read_text()) for file in files)
    for block in quotes:
        assert remove_indents(block) in written, block


def remove_indents(text: str) -> str:
    return re.sub(r"^ +", "", text, flags=re.MULTILINE)


def write_formatted(folder: Path, names: Names) -> list[str]:
    """Write a context's files without the rest of the repository; return the paths of its modules."""
    for path, text in INSIDE.render(names).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    python = [path for path in INSIDE.list_paths(names) if path.endswith(".py")]
    shutil.copy(ROOT / "pyproject.toml", folder)
    assert_passes(folder, "ruff", "format", "--no-cache", *python)
    return python


def test_a_name_of_maximum_length_fits_into_every_line(tmp_path: Path) -> None:
    python = write_formatted(tmp_path, Names("m" * MAX_LENGTH, "a" * MAX_LENGTH))
    assert_passes(tmp_path, "ruff", "check", "--no-cache", "--ignore", "I", *python)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Loyalty", "lower-case identifier"),
        ("2go", "lower-case identifier"),
        ("gift-cards", "lower-case identifier"),
        ("gift_", "lower-case identifier"),
        ("../evil", "lower-case identifier"),
        ("x; touch evil", "lower-case identifier"),
        ("'$(touch evil)'", "lower-case identifier"),
        ("a" * 21, "at most 20"),
        ("", "lower-case identifier"),
        ("import", "is reserved"),
        ("list", "is reserved"),
        ("google", "is reserved"),
        ("public", "is reserved"),
        ("banking", "is taken: protos/diptych/banking exists"),
        ("access", "is taken: protos/diptych/access exists"),
        ("fulfilment", "is taken: protos/diptych/fulfilment exists"),
    ],
)
def test_an_invalid_name_has_an_error_of_one_line(untouched: Path, name: str, reason: str) -> None:
    with pytest.raises(StartError, match=r"^NAME: ") as error:
        main(Names(name, "probe"), untouched)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("aggregate", "reason"),
    [
        ("Member", "lower-case identifier"),
        ("class", "is reserved"),
        ("event", "is taken: the templates use the name Event"),
        ("aggregate", "is taken: the templates use the name Aggregate"),
        ("page", "is taken: the templates use the name list_pages"),
        ("x", "must begin with two letters"),
        ("x1", "must begin with two letters"),
        ("a_b", "must begin with two letters"),
        ("view", "is taken: the templates use the name View"),
    ],
)
def test_an_invalid_aggregate_has_an_error_of_one_line(untouched: Path, aggregate: str, reason: str) -> None:
    with pytest.raises(StartError, match=r"^AGGREGATE: ") as error:
        main(Names(NEW.context, aggregate), untouched)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_repository_of_its_own_has_the_same_modules() -> None:
    inside, outside = INSIDE.render(NEW), OUTSIDE.render(NEW)
    assert len(outside) > len(inside)
    for path, text in outside.items():
        if path.endswith(".py"):
            compile(text, path, "exec")


@pytest.mark.parametrize(
    ("aggregate", "plural", "a_noun"),
    [
        ("member", "members", "a member"),
        ("item", "items", "an item"),
        ("gift_box", "gift_boxes", "a gift box"),
        ("entry", "entries", "an entry"),
        ("key", "keys", "a key"),
    ],
)
def test_names_are_english(aggregate: str, plural: str, a_noun: str) -> None:
    names = Names("loyalty", aggregate)
    assert (names.plural, names.to_variables()["a_noun"]) == (plural, a_noun)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("NAME=probe_context",),
        ("NAME=banking", "AGGREGATE=member"),
        ("NAME='; touch evil; '", "AGGREGATE=member"),
    ],
)
def test_an_invalid_name_changes_no_file(untouched: Path, arguments: tuple[str, ...]) -> None:
    before = read_files(untouched)
    result = make(untouched, *arguments)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert read_files(untouched) == before
