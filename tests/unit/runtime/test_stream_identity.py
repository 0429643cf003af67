"""The identity of a stream from which housekeeping has removed messages."""

import pytest

from runtime.jetstream import StreamIdentity


def identity(first: int, last: int, messages: int, removed_to: int) -> StreamIdentity:
    return StreamIdentity("e-1", "i-1", True, first, last, messages, None, removed_to)


@pytest.mark.parametrize(
    ("stream", "intact"),
    [
        (identity(0, 0, 0, 0), True),
        (identity(1, 9, 9, 0), True),
        (identity(1, 9, 9, 5), True),  # about to be removed
        (identity(6, 9, 4, 5), True),
        (identity(10, 9, 0, 9), True),
        (identity(6, 9, 4, 0), False),  # removed by somebody else
        (identity(7, 9, 3, 5), False),
        (identity(6, 9, 3, 5), False),
        (identity(1, 9, 8, 5), False),
    ],
)
def test_only_messages_that_housekeeping_removed_may_be_missing(stream: StreamIdentity, intact: bool) -> None:
    assert stream.intact is intact


@pytest.mark.parametrize(
    ("checkpoint", "complete"),
    [(("e-1", 5), True), (("e-1", 9), True), (("e-1", 4), False), (("e-0", 9), False), (("", 0), False)],
)
def test_a_checkpoint_below_the_removed_messages_lacks_events(
    checkpoint: tuple[str, int], complete: bool
) -> None:
    assert identity(6, 9, 4, 5).has_events_after(checkpoint) is complete
    assert identity(1, 9, 9, 0).has_events_after(checkpoint)
