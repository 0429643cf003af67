"""Steps wait in memory for a place of their target, those of older sagas first."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from process_manager.dispatch.step_queue import MAX_BYTES, MAX_STEPS, StepQueue
from process_manager.postgres.due_work import DueStep

START = datetime(2026, 1, 2, tzinfo=UTC)
METHOD = "/a.v1.CommandService/Do"


def step(id_: str, name: str, began: int, method: str = METHOD) -> DueStep:
    return DueStep("s", id_, name, 1, method, b"", 0, False, "", None, START + timedelta(seconds=began))


def take_all(queue: StepQueue, target: str = "a.v1.CommandService") -> list[tuple[str, str]]:
    taken = []
    while found := queue.take(target):
        taken.append((found.id, found.step))
    return taken


def test_steps_of_older_sagas_come_first() -> None:
    queue = StepQueue()
    for each in (step("young", "first", 2), step("old", "second", 1), step("young", "second", 2)):
        queue.put(each)
    assert take_all(queue) == [("old", "second"), ("young", "first"), ("young", "second")]


def test_sagas_of_one_moment_take_all_their_steps_one_saga_after_the_other() -> None:
    queue = StepQueue()
    for name in ("1", "2", "3"):
        for id_ in ("a", "b", "c"):
            queue.put(step(id_, name, 0))
    assert take_all(queue) == [(id_, name) for id_ in ("a", "b", "c") for name in ("1", "2", "3")]


def test_a_step_waits_once_and_each_target_has_its_own() -> None:
    queue = StepQueue()
    assert not queue.put(step("a", "1", 0))
    assert not queue.put(step("a", "1", 0))
    assert not queue.put(step("a", "2", 0, "/b.v1.CommandService/Do"))
    assert set(queue) == {("s", "a", "1", 1), ("s", "a", "2", 1)}
    assert take_all(queue) == [("a", "1")]
    assert take_all(queue, "b.v1.CommandService") == [("a", "2")]
    assert not set(queue)


def test_a_new_attempt_waits_beside_an_earlier_one() -> None:
    queue = StepQueue()
    for attempt in (1, 2, 2):
        queue.put(replace(step("a", "1", 0), attempt=attempt))
    taken = [queue.take("a.v1.CommandService"), queue.take("a.v1.CommandService")]
    assert [each.attempt for each in taken if each] == [1, 2]
    assert not set(queue)


def test_large_requests_take_the_places_of_many() -> None:
    queue = StepQueue()
    for number, size in enumerate((MAX_BYTES + 1, MAX_BYTES // 2, MAX_BYTES // 2)):
        overflows = queue.put(replace(step(str(number), "1", -number), request=bytes(size)))
        assert overflows == (number == 1)
    assert take_all(queue) == [("2", "1"), ("1", "1")]
    assert not queue.put(replace(step("0", "1", 0), request=bytes(MAX_BYTES + 1)))
    assert take_all(queue) == [("0", "1")]


def test_beyond_the_maximum_the_youngest_find_no_place() -> None:
    queue = StepQueue()
    for number in range(MAX_STEPS):
        assert not queue.put(step(f"{number:04}", "1", number))
    assert queue.put(step("late", "1", MAX_STEPS))
    assert queue.put(step("early", "1", -1))
    taken = [id_ for id_, _ in take_all(queue)]
    assert (len(taken), taken[0], taken[-1]) == (MAX_STEPS, "early", f"{MAX_STEPS - 2:04}")


def test_probes_take_turns() -> None:
    queue = StepQueue()
    for each in (replace(step("old", "1", 0), tries=1), step("young", "1", 1), step("younger", "1", 2)):
        queue.put(each)
    found = queue.take("a.v1.CommandService", in_turn=True)
    assert found is not None
    assert found.id == "young"
    assert [id_ for id_, _ in take_all(queue)] == ["old", "younger"]
