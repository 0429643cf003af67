"""The kinds of metrics: what they keep, what they export, and the table of them in docs/operations.md."""

from pathlib import Path
from threading import Thread

import pytest

from devstack.describe_metrics import PROCESSES, find_metrics, read_rows, write_row
from runtime.telemetry import instruments, trace_context
from runtime.telemetry.instruments import Counter, Gauge, Histogram

TRACES = ("1", "01"), ("2", "03"), ("3", "00")
ROOT = Path(__file__).parents[3]
GIVEN_NAMES = {
    "commands.processed",
    "events.processed",
    "read_model.lag",
    "outbox.pending",
    "rpc.server.call.duration",
}
"""Names that are not ours: the guide's, and those of semantic conventions."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruments, "_registry", {})


def test_every_module_of_metrics_belongs_to_a_process() -> None:
    paths = [path.relative_to(ROOT) for path in ROOT.glob("*/**/metrics.py") if ".venv" not in path.parts]
    assert {".".join(path.parent.parts) for path in paths} <= set(PROCESSES)


def test_the_operators_page_has_every_metric_as_it_is_declared() -> None:
    assert read_rows() == [write_row(*each) for each in find_metrics()], (
        "run `python -m devstack.describe_metrics`"
    )


def test_our_names_begin_with_the_name_of_the_project() -> None:
    names = {instrument.name for _, instrument in find_metrics()}
    assert {name for name in names if not name.startswith("diptych.")} <= GIVEN_NAMES


@pytest.mark.usefixtures("registry")
def test_a_name_is_declared_once() -> None:
    Counter("diptych.things", "1", "Things")
    with pytest.raises(ValueError, match=r"diptych\.things: this metric is declared twice"):
        Gauge("diptych.things", "1", "Things")


@pytest.mark.usefixtures("registry")
def test_an_attribute_without_a_value_is_left_out() -> None:
    counter = Counter("diptych.things", "1", "Things", "color", "size")
    counter.count("red", None)
    counter.add(3, "red", 2)
    points = [(counter.name_values(key), value) for key, value in counter.sums.items()]
    assert points == [({"color": "red"}, 1), ({"color": "red", "size": 2}, 3)]
    counter.count("red")
    with pytest.raises(ValueError, match="zip"):
        [counter.name_values(key) for key in counter.sums]


@pytest.mark.usefixtures("registry")
def test_a_bucket_keeps_its_latest_sampled_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    sampled, later, unsampled = (f"00-{digit * 32}-{digit * 16}-{flags}" for digit, flags in TRACES)
    histogram = Histogram("diptych.durations", "s", "Durations")

    def record(value: float, traceparent: str | None) -> None:
        token = trace_context.set_current(traceparent)
        histogram.record(value)
        trace_context.reset(token)

    record(0.3, sampled)
    assert histogram.distributions[()].exemplars == {}, "they are off"
    monkeypatch.setattr(instruments, "_keeps_exemplars", True)
    for value, traceparent in (
        (0.3, sampled),
        (0.4, later),
        (0.45, unsampled),
        (99.0, sampled),
        (0.01, None),
    ):
        record(value, traceparent)
    histogram.record_traced(later, 0.02)
    kept = {bucket: each[:2] for bucket, each in histogram.distributions[()].exemplars.items()}
    bucket_of = histogram.bounds.index
    assert kept == {
        bucket_of(0.5): (0.4, later),
        bucket_of(0.025): (0.02, later),
        len(histogram.bounds): (99.0, sampled),
    }


@pytest.mark.usefixtures("registry")
def test_a_counter_without_attributes_begins_at_zero() -> None:
    """So that a query of its growth sees the first one."""
    assert Counter("diptych.things", "1", "Things").sums == {(): 0}
    assert Counter("diptych.colored_things", "1", "Things", "color").sums == {}


@pytest.mark.usefixtures("registry")
def test_a_gauge_is_computed_when_it_is_read() -> None:
    gauge = Gauge("diptych.things", "1", "Things", "color")
    gauge.set(1, "red")
    things = {"blue": 2}
    gauge.observe(lambda: {(color,): number for color, number in things.items()})
    assert gauge.read_values() == {("red",): 1, ("blue",): 2}
    things["blue"] = 3
    assert gauge.read_values()["blue",] == 3
    del things["blue"]
    assert gauge.read_values() == {("red",): 1}


@pytest.mark.usefixtures("registry")
def test_a_gauge_that_another_thread_reads_while_it_changes_never_fails() -> None:
    gauge = Gauge("diptych.things", "1", "Things", "number")
    things: dict[int, int] = {}
    gauge.observe(lambda: {(number,): value for number, value in things.items()})
    errors: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(300):
                gauge.read_values()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=read)
    thread.start()
    while thread.is_alive():
        for number in range(200):
            things.setdefault(number, number)
        things.clear()
    assert errors == []
