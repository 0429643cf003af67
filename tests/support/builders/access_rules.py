"""Access rules of methods that are made in tests."""

from runtime.grpc.access import AccessRule


def any_object(scope: str) -> AccessRule:
    """Return the rule of a method that works on any object."""
    return AccessRule(
        "test.Do", scope, owner="", is_in_request=False, accepts_own=False, own="test.own", all="test.all"
    )
