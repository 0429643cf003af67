"""The stream as a whole, and how far the projections say that they are in it."""

from collections.abc import Sequence

from contracts import streams
from operations.verify.model import Reading
from operations.verify.report import Problem
from operations.verify.sources.read_model import ReadModel
from operations.verify.sources.stream import Feed


async def check_stream(feed: Feed, incarnation: str) -> Sequence[Problem]:
    """Return what keeps the stream from being this database's, and whole."""
    stream = await feed.identity()

    def problem(text: str, *, waits: bool = True) -> list[Problem]:
        return [Problem("stream", f"stream {streams.JETSTREAM}", text, waits)]

    if stream is None:
        return problem("there is none; the relay makes it")
    if stream.incarnation != incarnation:
        return problem(f"it is of incarnation {stream.incarnation}, the database is {incarnation}")
    if not stream.complete:
        return problem("the relay is still filling it")
    if not stream.intact:
        return problem(f"it holds {stream.messages} of {stream.last_sequence} messages", waits=False)
    return ()


async def check_progress(
    redis: ReadModel, reading: Reading, feed: Feed, incarnation: str
) -> Sequence[Problem]:
    """Return what is wrong with a projection's presence and progress; the stream's end is read after it."""
    view = reading.view
    progress = await redis.progress(view)
    present, fill = await redis.ask([("GET", view.ready), ("GET", view.build)])
    stream = await feed.identity()
    problems = []

    def problem(text: str, *, waits: bool = True) -> None:
        problems.append(Problem("checkpoints", f"projection {reading.name}", text, waits))

    if not isinstance(fill, bytes) or fill.decode().partition("/")[0] != incarnation:
        problem(f"its filling is {_shown(fill)}, the database is {incarnation}")
    if not isinstance(present, bytes) or present.decode() != incarnation:
        problem(f"it is present for {_shown(present)}, the database is {incarnation}")
    if missing := set(range(streams.PARTITIONS)) - set(progress):
        problem(f"it has no progress in {len(missing)} partitions")
    if stream is None:
        return problems
    if elsewhere := sum(epoch != stream.epoch for epoch, _ in progress.values()):
        problem(f"{elsewhere} partitions are in another epoch than the stream")
    for partition, (epoch, sequence) in sorted(progress.items()):
        if epoch == stream.epoch and sequence > stream.last_sequence:
            text = f"partition {partition} is at {sequence}, the stream ends at {stream.last_sequence}"
            problem(text, waits=False)
    return problems


async def check_parked(redis: ReadModel, reading: Reading) -> Sequence[Problem]:
    """Return the entries in the list of parked aggregates whose views are not parked."""
    (listed,) = await redis.hashes([reading.view.parked])
    ids = [view_id.decode() for view_id in listed]
    parked = await redis.ask([("HEXISTS", reading.view.key(view_id), "parked") for view_id in ids])
    return [
        Problem(
            "checkpoints",
            f"projection {reading.name}",
            f"{view_id} is listed as parked, and is not",
            waits=True,
        )
        for view_id, is_parked in zip(ids, parked, strict=True)
        if not is_parked
    ]


def _shown(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "nothing"
