"""Merkle trees as in RFC 6962: the root of many leaves, and the path that proves one of them.

How it works. A leaf's hash is SHA-256 of a zero byte and its data, a node's that of a one byte and its two
children. A level is paired from the left, and an odd last node moves up as it is. A path has the siblings of
a leaf and of the nodes above it, from below; a node that moves up has none. A tree that grows by one leaf at
a time keeps, with each leaf, the subtrees that it completes: of 2^k leaves that end with it. From these the
root at any size, and the path of any leaf in it, follow by reading some twenty of them.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256

EMPTY = sha256().digest()
"""The root of a tree without leaves."""

Subtree = tuple[int, int]
"""Its level, and the number of leaves up to its last one."""
GetSubtree = Callable[[Subtree], bytes]


def hash_leaf(data: bytes) -> bytes:
    return sha256(b"\0" + data).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def compute_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over hashes of leaves."""
    level = list(leaves)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [sha256(b"\1" + left + right).digest() for left, right in pairs]
        level = above + level[-1:] if len(level) % 2 else above
    return level[0] if level else EMPTY


def compute_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the path of a leaf."""
    path, level = [], list(leaves)
    while len(level) > 1:
        if (sibling := index ^ 1) < len(level):
            path.append(level[sibling])
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [hash_node(left, right) for left, right in pairs]
        level, index = above + level[-1:] if len(level) % 2 else above, index // 2
    return path


def list_subtrees(begin: int, end: int) -> Iterator[Subtree]:
    """Yield the complete subtrees of which a range of leaves consists, the largest first.

    Args:
        begin: number of leaves before the range; a multiple of the largest power of two within it.
        end: number of leaves up to its end.
    """
    while begin < end:
        level = (end - begin).bit_length() - 1
        begin += 1 << level
        yield level, begin


def join_subtrees(roots: Sequence[bytes]) -> bytes:
    """Return the root over complete subtrees, the largest first."""
    *larger, root = roots
    for left in reversed(larger):
        root = hash_node(left, root)
    return root


def complete_subtrees(leaf: bytes, size: int, get_subtree: GetSubtree) -> list[bytes]:
    """Return the subtrees that a leaf completes, by their level; the leaf itself is the first.

    Args:
        leaf: its hash.
        size: number of leaves with it.
        get_subtree: returns those that earlier leaves have completed.
    """
    subtrees = [leaf]
    while not size >> len(subtrees) - 1 & 1:
        level = len(subtrees) - 1
        subtrees.append(hash_node(get_subtree((level, size - (1 << level))), subtrees[-1]))
    return subtrees


def list_path(index: int, size: int) -> Iterator[Sequence[Subtree]]:
    """Yield the siblings of a leaf from below, each as the complete subtrees of which it consists."""
    level, width = 0, size
    while width > 1:
        if (sibling := index ^ 1) < width:
            yield tuple(list_subtrees(sibling << level, min((sibling + 1) << level, size)))
        level, index, width = level + 1, index // 2, (width + 1) // 2
