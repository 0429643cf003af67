"""Merkle trees: roots, paths and subtrees agree with the definition of RFC 6962 at every size."""

from collections.abc import Sequence

import pytest

from contracts.audit.merkle import (
    EMPTY,
    complete_subtrees,
    compute_path,
    compute_root,
    hash_leaf,
    hash_node,
    join_subtrees,
    list_path,
    list_subtrees,
)

LEAVES = [hash_leaf(bytes([number])) for number in range(40)]


def define_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word by word."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hash_node(define_root(leaves[:split]), define_root(leaves[split:]))


def test_a_known_tree_has_the_published_root() -> None:
    """Vectors of the Certificate Transparency project."""
    data = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    root = compute_root([hash_leaf(bytes.fromhex(each)) for each in data])
    assert root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert compute_root([]) == EMPTY


@pytest.mark.parametrize("size", range(1, 40))
def test_roots_are_those_of_the_definition(size: int) -> None:
    assert compute_root(LEAVES[:size]) == define_root(LEAVES[:size])


def test_a_tree_that_grows_knows_its_root_and_paths_at_every_size() -> None:
    known = dict[tuple[int, int], bytes]()
    for size, leaf in enumerate(LEAVES, 1):
        subtrees = complete_subtrees(leaf, size, known.__getitem__)
        known |= {(level, size): root for level, root in enumerate(subtrees)}
        assert join_subtrees([known[each] for each in list_subtrees(0, size)]) == define_root(LEAVES[:size])
        for index in range(size):
            path = [join_subtrees([known[each] for each in parts]) for parts in list_path(index, size)]
            assert path == compute_path(LEAVES[:size], index)
