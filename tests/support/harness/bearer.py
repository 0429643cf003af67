"""The metadata of calls to a stack.

Callers are staff: besides their scopes they have `<context>.all` of the contexts of these scopes. A test
about owners names `<context>.own`.
"""

from collections.abc import Collection, Sequence

from devstack.stack import Stack

Bearer = tuple[tuple[str, str], ...]


def bearer(stack: Stack, *scopes: str, subject: str = "alice", on_behalf_of: str | None = None) -> Bearer:
    token = stack.token(*add_reach(scopes), subject=subject, on_behalf_of=on_behalf_of)
    return (("authorization", f"Bearer {token}"),)


def add_reach(scopes: Collection[str]) -> Sequence[str]:
    """Return scopes with those that reach all objects, for contexts without `own` among them."""
    contexts = {scope.partition(".")[0] for scope in scopes}
    return [*scopes, *(f"{name}.all" for name in sorted(contexts) if f"{name}.own" not in scopes)]
