"""The metadata of calls to a stack."""

from devstack.stack import Stack

Bearer = tuple[tuple[str, str], ...]


def bearer(stack: Stack, *scopes: str, subject: str = "alice") -> Bearer:
    return (("authorization", f"Bearer {stack.token(*scopes, subject=subject)}"),)
