"""Pages of a list: members of an index, each checked against the view that it stands for.

An index follows its views at a small distance. A member whose view has moved on, or is gone, is left out
here, so a page never shows an order in a list that it does not belong to.
"""

from contracts.view_layout import id_of_member
from query_server.view_reader import ViewReader, Window

ROUNDS = 5
"""How often a page is filled up where members are left out; after that it holds fewer."""


async def page(views: ViewReader, window: Window, after: str, size: int) -> tuple[list[bytes], str]:
    """Return the serialised views of a page, and the member that the next page follows on.

    Args:
        views: where the views are.
        window: the part of the index that lists them.
        after: the member that the page follows on; empty for the first page.
        size: how many views at the most.

    Returns:
        The views, newest first; the member is empty on the last page.
    """
    found: list[bytes] = []
    for _ in range(ROUNDS):
        wanted = size - len(found)
        members = await views.members(window, after, wanted + 1)  # one more tells whether there are more
        here = members[:wanted]
        found += await _belonging(views, window.index, here)
        if len(members) <= wanted:
            return found, ""
        after = here[-1]
        if len(found) == size:
            break
    return found, after


async def _belonging(views: ViewReader, index: str, members: list[str]) -> list[bytes]:
    """Return the views of those members that are entries of their views now."""
    if not members:
        return []
    loaded = await views.listed([id_of_member(member) for member in members])
    return [
        view.data
        for member, view in zip(members, loaded, strict=True)
        if view is not None and (index, member) in view.entries
    ]
