"""Pages of streams that verify holds in memory."""

from operations.verify.sources.postgres_reader import PAGE_EVENTS, select_page


def test_a_page_has_a_bounded_number_of_events_or_one_stream() -> None:
    third = PAGE_EVENTS // 3
    streams = {"a": third, "b": third, "c": third, "d": third}
    assert list(select_page(streams)) == ["a", "b", "c"]
    assert list(select_page({"long": 2 * PAGE_EVENTS, **streams})) == ["long"]
    assert list(select_page({"a": 1, "long": 2 * PAGE_EVENTS})) == ["a"]
    assert select_page({}) == {}
