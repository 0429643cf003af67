"""The recipes of docs/how-to.md: their diffs apply, name the same files, and turn no test red."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from operations.new_context.__main__ import main as write_context
from operations.new_context.files import INSIDE
from tests.support.builders.recipe_diffs import CONTEXT, FOLDER, Recipe, read_hunks, read_recipes
from tests.support.harness.repository_copies import ROOT, assert_passes, copy_repository, run

MAX_STEPS = 10
TESTS = ("tests/contract", "tests/architecture/test_composition.py", "tests/architecture/test_protos.py")
"""The tests beside `make check unit` that a change of a context can turn red without servers."""

RECIPES = read_recipes()
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def apply(recipe: Recipe, tree: Path) -> None:
    for diff in recipe.diffs:
        result = run(tree, "git", "apply", "-C1", str(diff), GIT_CEILING_DIRECTORIES=str(tree.parent))
        assert result.returncode == 0, f"see tests/support/builders/recipe_diffs.py:\n{result.stderr}"


def test_every_diff_belongs_to_a_recipe() -> None:
    assert {recipe.diffs[-1] for recipe in RECIPES} == set(FOLDER.iterdir())
    for recipe in RECIPES:
        assert f"[the diff](how-to/{recipe.name}.diff)" in recipe.introduction


@each_recipe
def test_a_recipe_names_the_files_of_its_diff_and_what_changes_in_them(recipe: Recipe) -> None:
    assert 0 < len(recipe.steps) <= MAX_STEPS
    hunks = read_hunks(recipe.diffs[-1])
    assert recipe.paths == list(hunks)
    for step in recipe.steps:
        path, *fragments = re.findall(r"`([^`]+)`", step)
        assert all(fragment in hunks[path] for fragment in fragments if path in hunks), step
    assert any(step.startswith("Check: ") for step in recipe.steps)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of a new context alone."""
    repository, tree = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("context")
    for settings in ("pyproject.toml", "buf.yaml"):
        shutil.copy(ROOT / settings, repository)
    # Ruff sorts imports by the packages that it sees. A reader's own context of this name is not among them.
    ignored = shutil.ignore_patterns("__pycache__", f"*{CONTEXT.context}*")
    for package in ROOT.glob("*/__init__.py"):
        shutil.copytree(package.parent, repository / package.parent.name, ignore=ignored)
    write_context(CONTEXT, repository)
    for path in INSIDE.list_paths(CONTEXT):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(repository / path, tree / path)
    return tree


@each_recipe
def test_a_diff_applies_to_a_new_context(recipe: Recipe, context: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(context, tree)
    apply(recipe, tree)
    for path in recipe.paths:
        if path.endswith(".py"):
            compile((tree / path).read_text(), path, "exec")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a new context, and a commit with which `buf breaking` compares."""
    tree = tmp_path_factory.mktemp("how-to") / "tree"
    copy_repository(tree)
    assert_passes(tree, "make", "new-context", f"NAME={CONTEXT.context}", f"AGGREGATE={CONTEXT.aggregate}")
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    for command in (("init", "-q"), ("add", "-A"), (*identity, "commit", "-qm", "Before the recipe")):
        subprocess.run(["git", *command], cwd=tree, check=True)
    return tree


@pytest.mark.long
@each_recipe
def test_a_recipe_turns_no_test_red(recipe: Recipe, repository: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(repository, tree, symlinks=True)
    apply(recipe, tree)
    mypy_cache = ROOT / ".cache/mypy-how-to"  # of its own: cached results of changed files are wrong for ROOT
    for command in recipe.commands:
        assert_passes(tree, *command.split(), BREAKING_AGAINST="HEAD", MYPY_CACHE_DIR=str(mypy_cache))
    assert_passes(tree, "pytest", "-q", "-n", "2", "--dist", "loadfile", *TESTS)
