"""The recipes of docs/how-to.md: their diffs apply, name the same files, and turn no test red."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.builders.recipe_diffs import FOLDER, Recipe, read_hunks, read_recipes
from tests.support.harness.repository_copies import ROOT, assert_passes, copy_repository, run

MAX_STEPS = 10
TESTS = ("tests/contract", "tests/architecture")
"""The tests beside `make check unit` that must stay green after every recipe."""
SKIPPED = ("--ignore=tests/architecture/test_how_to.py", "--ignore=tests/architecture/test_new_context.py")
"""The recipes of a copy that one of them has changed do not apply to it, and new contexts are independent."""


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


@each_recipe
def test_a_diff_applies_to_todays_files(recipe: Recipe, tmp_path: Path) -> None:
    for path in {path for diff in recipe.diffs for path in read_hunks(diff) if (ROOT / path).exists()}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    apply(recipe, tmp_path)
    for path in recipe.paths:
        if path.endswith(".py"):
            compile((tmp_path / path).read_text(), path, "exec")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a commit, with which `buf breaking` compares."""
    tree = tmp_path_factory.mktemp("how-to") / "tree"
    copy_repository(tree)
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
    assert_passes(tree, "pytest", "-q", "-n", "2", "--dist", "loadfile", *SKIPPED, *TESTS)
