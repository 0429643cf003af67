"""Writes the diff of a recipe of docs/how-to.md from the changes of the working tree.

The diffs are on the context that `make new-context NAME=library AGGREGATE=book` writes. If its templates
have changed so that a diff no longer applies: make the context on a branch of your own, apply the recipes
that the diff builds on, and commit. Apply the diff with `git apply --reject`, make the rejected changes by
hand, and run `python -m tests.support.builders.recipe_diffs add-a-field`. Keep the diff, and undo all other
changes.
"""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from operations.new_context.naming import Names
from tests.support.harness.repository_copies import ROOT

PAGE = ROOT / "docs/how-to.md"
FOLDER = PAGE.with_suffix("")
CONTEXT = Names("library", "book")
"""The context that the recipes change."""
CONTEXT_LINES = 2
"""Unchanged lines around a change. With more of them, more changes of the templates would affect diffs."""


@dataclass(frozen=True)
class Recipe:
    """A section of the page, with its diff."""

    name: str
    """The title as in links: `add-a-field`."""
    introduction: str
    steps: Sequence[str]
    diffs: Sequence[Path]
    """Its own diff at the end, after those of the recipes that it builds on."""

    @property
    def paths(self) -> list[str]:
        """The files that the steps name, in order."""
        return [match[1] for step in self.steps if (match := re.match(r"`([\w/.]+\.\w+)`:", step))]

    @property
    def commands(self) -> list[str]:
        """The commands of the steps that run something or check the result."""
        steps = (step for step in self.steps if step.startswith(("Run ", "Check: ")))
        return re.findall(r"`((?:make|pytest) [^`]+)`", " ".join(steps))


def read_recipes() -> list[Recipe]:
    _, *sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    return [_parse_recipe(*section.split("\n", 1)) for section in sections]


def _parse_recipe(title: str, body: str) -> Recipe:
    name = title.strip().lower().replace(" ", "-")
    introduction, *steps = (" ".join(part.split()) for part in re.split(r"^\d+\. ", body, flags=re.MULTILINE))
    bases = re.findall(r"\(#([a-z-]+)\)", introduction)
    return Recipe(name, introduction, steps, [FOLDER / f"{each}.diff" for each in (*bases, name)])


def read_hunks(diff: Path) -> Mapping[str, str]:
    """Return the changed and the surrounding lines of each file of a diff, by its path, in order."""
    _, *files = re.split(r"^diff --git a/(\S+) b/\S+\n", diff.read_text(), flags=re.MULTILINE)
    return dict(zip(files[::2], files[1::2], strict=True))


def main(name: str) -> None:
    """Write a recipe's diff: the changes since the last commit in the files that its steps name."""
    (recipe,) = (recipe for recipe in read_recipes() if recipe.name == name)
    subprocess.run(["git", "add", "--intent-to-add", *recipe.paths], cwd=ROOT, check=True)
    diff = ["git", "diff", "--no-color", "--no-ext-diff", f"-U{CONTEXT_LINES}", "HEAD", "--"]
    changes = [
        subprocess.run([*diff, path], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for path in recipe.paths
    ]
    recipe.diffs[-1].write_text("".join(changes))


if __name__ == "__main__":
    main(sys.argv[1])
