"""The check that keeps private words out of identifiers."""

from pathlib import Path

import pytest

from devstack.check_words import FOLDERS, find_private_words, standard_term

ROOT = Path(__file__).parents[2]


def test_every_package_is_checked() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages <= set(FOLDERS)


@pytest.mark.parametrize(
    "name", ["told", "_refill", "RedisFilling", "REFILL_PAGE", "is_stuck", "Impossible", "no_further"]
)
def test_a_private_word_is_found_wherever_it_is_in_a_name(name: str) -> None:
    assert standard_term(name)


@pytest.mark.parametrize("name", ["toldo", "fulfilling", "outstanding", "Rebuild", "furthermore", "hearsay"])
def test_a_word_that_only_contains_one_is_fine(name: str) -> None:
    assert standard_term(name) is None


def test_prose_is_not_checked(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('"""What a saga was told."""\nstate = "told"  # told\n')
    assert list(find_private_words(file)) == []


def test_a_finding_names_file_line_and_term(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("x = 1\nhears = 2\n")
    assert list(find_private_words(file)) == [f"{file}:2: hears: use source_streams, or subscribes_to"]
