"""docs/access.md lists every method with its rule."""

from devstack.describe_access import read_tables, write_tables


def test_the_page_lists_every_method_with_its_rule() -> None:
    assert read_tables() == write_tables(), "run `make generate`"
    assert read_tables().count("\n| `") >= 160
