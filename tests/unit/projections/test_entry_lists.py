"""Index entries of a batch by index, in lists of a bounded size."""

import pytest

from projector import entry_lists
from projector.entry_lists import EntryLists


def test_entries_are_listed_by_index_without_those_that_are_there() -> None:
    lists = EntryLists("0")
    lists.add(1, [("all", "a"), ("red", "a")], ())
    lists.add(3, [("all", "c"), ("red", "c")], [("red", "c"), ("blue", "c")])
    assert lists.list_all() == [("all", [1, 3], ["0", "a", "0", "c"]), ("red", [1], ["0", "a"])]


def test_a_full_list_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry_lists, "MAX_SIZE", 2)
    lists = EntryLists()
    for position, member in enumerate("abcde", 1):
        lists.add(position, [("all", member)], ())
    expected = [("all", [1, 2], ["a", "b"]), ("all", [3, 4], ["c", "d"]), ("all", [5], ["e"])]
    assert lists.list_all() == expected
