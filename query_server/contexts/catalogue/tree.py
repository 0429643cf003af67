"""The category tree, as the queries of the catalogue read it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from diptych.catalogue.v1.types_pb2 import CategoryTree

from contracts.view_layout import View
from query_server.fresh_reader import FreshReader
from query_server.freshness import Freshness
from query_server.not_found import NotFound
from runtime.grpc.rpc_error import RpcError

TREES = View.of(CategoryTree)
TREE_ID = "tree"
Children = Mapping[str, Sequence[str]]
CATEGORY_NOT_FOUND = NotFound("catalogue", "CATEGORY_NOT_FOUND", ("category_id",))

_kept: WeakKeyDictionary[Freshness, tuple[Any, Children]] = WeakKeyDictionary()
"""By read model: the build and version of its last tree, and the children in it."""


async def read_tree(trees: FreshReader) -> bytes:
    """Return the serialised category tree, empty if no category was added.

    Raises:
        RpcError: an error of the reader.
    """
    (data,) = await trees.get_all([TREE_ID])
    if isinstance(data, RpcError):
        raise data
    return data if isinstance(data, bytes) else b""


async def read_children(trees: FreshReader) -> Children:
    """Return the ids of the categories directly below each category.

    Trees change seldom, and reading one of 1,000 categories takes a millisecond: so the last one is kept, and
    its version is read. A build of the projection has one tree at each version.

    Raises:
        RpcError: an error of the reader.
    """
    build, (version, _) = await trees.read(("GET", trees.view.build), trees.views.version_command(TREE_ID))
    kept = _kept.get(trees.freshness)
    if kept is None or kept[0] != (build, version):
        kept = _kept[trees.freshness] = (build, version), find_children(await read_tree(trees))
    return kept[1]


def find_children(tree: bytes) -> Children:
    """Return the ids of the categories directly below each category of a serialised tree."""
    categories = CategoryTree.FromString(tree).categories
    children: dict[str, list[str]] = {each.category_id: [] for each in categories}
    for each in categories:
        if each.parent_id:
            children[each.parent_id].append(each.category_id)
    return children


def list_subtree(children: Mapping[str, Sequence[str]], category_id: str) -> Iterator[str]:
    """Yield the ids of a category and of all below it; none if there is no such category."""
    pending = [category_id] if category_id in children else []
    while pending:
        yield (found := pending.pop())
        pending += children[found]
