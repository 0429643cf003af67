"""What a run found, as pictures beside its JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.comparison import Sample, percentile
from bench.report import RESULTS
from bench.services import LEVELS, at_level

CALLS = ("echo of GetOrder", "GetOrder", "PlaceOrder")
PERCENTILES = ("50", "90", "95", "99", "99.9")
LAGS = ("publish, fetch, HSET", "commit to visible")
COSTS = ("echo of GetOrder", "GetOrder", "ListOrders", "BatchGetOrders", "PlaceOrder", "ReserveStock")

Results = Mapping[str, Sequence[Sample]]


def draw(name: str, results: Results) -> list[Path]:
    """Draw what was measured into files whose names begin with this one; return where."""
    mpl.rcParams.update({"axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True, "font.size": 9})
    drawings = {
        "concurrency": _concurrency,
        "latency": _latency,
        "lag": _lag,
        "cpu": _cpu,
    }
    paths = []
    for what, drawing in drawings.items():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        if drawing(figure.add_subplot(), results):
            paths.append(RESULTS / f"{name}-{what}.png")
            figure.savefig(paths[-1], dpi=120)
    return paths


def _concurrency(axes: Any, results: Results) -> bool:
    """Throughput against calls in flight."""
    for call in CALLS:
        points = [(n, results[at_level(call, n)]) for n in LEVELS if at_level(call, n) in results]
        if points:
            rates = [median(sample.rate for sample in samples) for _, samples in points]
            axes.plot([n for n, _ in points], rates, marker="o", label=call)
    axes.set(xscale="log", xlabel="calls in flight", ylabel="calls/s", ylim=(0, None))
    axes.set_xticks(LEVELS, [str(n) for n in LEVELS])
    return _named(axes)


def _latency(axes: Any, results: Results) -> bool:
    """Latency by percentile, at the concurrency of the table."""
    found = [call for call in CALLS if call in results]
    for call in found:
        half = [median(percentile(p)(sample) or 0.0 for sample in results[call]) for p in PERCENTILES]
        axes.plot(PERCENTILES, half, marker="o", label=call)
    axes.set(xlabel="percentile", ylabel="ms", yscale="log")
    return _named(axes)


def _lag(axes: Any, results: Results) -> bool:
    """How long single commands took from their commit into the read model."""
    found = [name for name in LAGS if name in results]
    for name in found:
        lags = [lag for sample in results[name] for lag in sample.lags]
        axes.hist(lags, bins=60, alpha=0.6, label=f"{name} ({len(lags)})")
    axes.set(xlabel="ms from commit to visible", ylabel="commands", yscale="log")
    return _named(axes)


def _cpu(axes: Any, results: Results) -> bool:
    """CPU time of an operation, by process."""
    found = [call for call in COSTS if call in results]
    below = dict.fromkeys(found, 0.0)
    for process in dict.fromkeys(process for call in found for process in results[call][0].cpu):
        each = [median(sample.cpu.get(process, 0.0) for sample in results[call]) for call in found]
        axes.barh(found, each, left=list(below.values()), label=process)
        below = {call: below[call] + cost for call, cost in zip(found, each, strict=True)}
    axes.invert_yaxis()
    axes.set(xlabel="us of CPU an operation")
    return _named(axes)


def _named(axes: Any) -> bool:
    """Say what is what; return whether anything is drawn."""
    drawn = bool(axes.get_legend_handles_labels()[0])
    if drawn:
        axes.legend()
    return drawn
