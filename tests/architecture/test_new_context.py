"""`make new-context` in a copy of the tree: what it writes passes all checks, and refusals leave no trace."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from devstack.new_context import files, naming, roots
from runtime.process.start_error import StartError

ROOT = Path(__file__).parents[2]
READY = (".venv/.ready", ".cache/protos/.ready")
NEW = "loyalty"
PYTHON = [path for path in (*files.paths(NEW), *roots.PATHS) if path.endswith(".py")]


def run(tree: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command with this environment's tools on the tree's own modules and stubs."""
    paths = {
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tree}:{tree / 'generated'}",
    }
    return subprocess.run(
        command, cwd=tree, env={**os.environ, **paths}, check=False, capture_output=True, text=True
    )


def make(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    there_already = [option for file in READY for option in ("-o", file)]
    return run(tree, "make", *there_already, "new-context", *arguments)


def contents(tree: Path) -> dict[str, bytes]:
    skipped = {".venv", ".cache", ".ruff_cache", "__pycache__"}
    return {
        str(path.relative_to(tree)): path.read_bytes()
        for path in tree.rglob("*")
        if path.is_file() and skipped.isdisjoint(path.relative_to(tree).parts)
    }


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that git has or would take."""
    subprocess.run(["make", "-C", str(ROOT), READY[1]], check=True, capture_output=True)
    tree = tmp_path_factory.mktemp("tree")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():  # one that was deleted is still listed
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    shutil.copytree(ROOT / ".cache/protos", tree / ".cache/protos")
    (tree / ".venv").symlink_to(ROOT / ".venv")
    return tree


@pytest.fixture(scope="module")
def tree(untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another copy, with a new context."""
    tree = tmp_path_factory.mktemp("with") / "tree"
    shutil.copytree(untouched, tree, symlinks=True)
    made = make(tree, f"NAME={NEW}")
    assert made.returncode == 0, made.stdout + made.stderr
    for path in (*files.paths(NEW), *roots.PATHS):
        assert f"  {path}\n" in made.stdout
    return tree


def passes(tree: Path, *command: str) -> None:
    result = run(tree, *command)
    assert result.returncode == 0, result.stdout + result.stderr


def test_all_its_files_are_there_and_nothing_else_is_lost(tree: Path, untouched: Path) -> None:
    before, after = contents(untouched), contents(tree)
    new = after.keys() - before.keys()
    stubs = {
        f"{kind}_pb2{end}"
        for kind in ("command_service", "events", "query_service", "types")
        for end in (".py", ".pyi", "_grpc.py", "_grpc.pyi")
    }
    events = {
        f"tests/contract/events/diptych.{NEW}.v1.Item{what}.json" for what in ("Added", "Renamed", "Removed")
    }
    assert new == {*files.paths(NEW), *events, *(f"generated/diptych/{NEW}/v1/{stub}" for stub in stubs)}
    assert {path for path in before if after.get(path) != before[path]} == set(roots.PATHS)


def test_its_own_tests_and_those_of_the_composition_pass(tree: Path) -> None:
    own = [path for path in files.paths(NEW) if path.startswith("tests/")]
    assert own
    others = ("tests/architecture/test_composition.py", "tests/contract/test_recorded_events.py")
    passes(tree, "pytest", "-q", "-p", "no:cacheprovider", *own, *others)


def test_ruff_and_buf_find_nothing(tree: Path) -> None:
    passes(tree, "ruff", "check", "--no-cache", *PYTHON)
    passes(tree, "ruff", "format", "--no-cache", "--check", *PYTHON)
    passes(tree, "buf", "lint")
    passes(tree, "buf", "format", "--diff", "--exit-code", "protos")


def test_mypy_finds_nothing(tree: Path) -> None:
    cache = str(
        ROOT / ".cache/mypy-new-context"
    )  # its own: what it says of changed files is of no use elsewhere
    passes(tree, "mypy", "--cache-dir", cache, *PYTHON)


def test_the_import_contracts_are_kept(tree: Path) -> None:
    passes(tree, "lint-imports", "--no-cache")


def test_the_stubs_are_those_of_the_protos(tree: Path) -> None:
    passes(tree, "make", "-o", READY[0], "-o", READY[1], "generated-matches")


def test_the_page_about_it_shows_what_is_written(tree: Path) -> None:
    page = (ROOT / "docs/adding-a-context.md").read_text()
    shown = re.findall(r"^ *```(?:python|proto)\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL)
    assert len(shown) > 5
    written = "".join(flush_left((tree / path).read_text()) for path in files.paths(NEW))
    for block in shown:
        assert flush_left(block) in written, block


def flush_left(text: str) -> str:
    return re.sub(r"^ +", "", text, flags=re.MULTILINE)


def test_the_longest_name_fits_into_every_line(tmp_path: Path) -> None:
    written = files.of("m" * naming.LONGEST)
    python = [path for path in written if path.endswith(".py")]
    for path in python:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(written[path])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    passes(tmp_path, "ruff", "format", "--no-cache", *python)
    passes(tmp_path, "ruff", "check", "--no-cache", "--ignore", "I", *python)


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
        ("import", "means something else"),
        ("list", "means something else"),
        ("google", "means something else"),
        ("banking", "is taken: there is protos/diptych/banking"),
        ("access", "is taken: there is protos/diptych/access"),
        ("tables", "is taken: it is a name in operations/verify/verification.py"),
        ("lifecycle", "is taken: it is a name in command_server/__main__.py"),
    ],
)
def test_a_name_that_cannot_be_had_is_one_line(name: str, reason: str) -> None:
    with pytest.raises(StartError) as refused:
        naming.check(name, ROOT)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("arguments", [(), ("NAME=banking",), ("NAME='; touch evil; '",)])
def test_what_is_refused_leaves_no_trace(untouched: Path, arguments: tuple[str, ...]) -> None:
    before = contents(untouched)
    refused = make(untouched, *arguments)
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
    assert contents(untouched) == before


@pytest.mark.parametrize("path", roots.PATHS)
@pytest.mark.parametrize("change", ["no list", "a comment in it", "two of it"])
def test_a_root_that_is_not_as_expected_is_one_line(tmp_path: Path, path: str, change: str) -> None:
    (root,) = (one for one in roots.ROOTS if one.path == path)
    for other in roots.PATHS:
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / other, tmp_path / other)
    text = (ROOT / path).read_text()
    (start,) = (
        line for line in text.splitlines() if line.startswith((f"{root.listing} =", f"{root.listing}:"))
    )
    begin, _, rest = start.partition("= ")
    changes = {
        "no list": text.replace(start, f"{begin}= sorted{rest}"),
        "a comment in it": text.replace(start, f"{begin}= {rest[0]}  # why\n{rest[1:]}"),
        "two of it": f"{text}\n{root.listing} = ()\n",
    }
    (tmp_path / path).write_text(changes[change])
    with pytest.raises(StartError, match=f"{path}: no list {root.listing} as it is expected") as refused:
        roots.changed(NEW, tmp_path)
    assert "\n" not in str(refused.value)
