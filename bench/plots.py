"""Plots of a run's results, saved beside its JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.comparison import Sample, select_percentile
from bench.report import RESULTS
from bench.services import LEVELS, name_at_level

CALLS = ("echo of GetOrder", "GetOrder", "PlaceOrder")
PERCENTILES = ("50", "90", "95", "99", "99.9")
LAGS = ("publish, fetch, HSET", "commit to visible")
COSTS = ("echo of GetOrder", "GetOrder", "ListOrders", "BatchGetOrders", "PlaceOrder", "ReserveStock")

Results = Mapping[str, Sequence[Sample]]


def draw(name: str, results: Results) -> list[Path]:
    """Save the plots for which there are samples as `<name>-<plot>.png`; return their paths."""
    mpl.rcParams.update({"axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True, "font.size": 9})
    plots = {
        "concurrency": _draw_concurrency,
        "latency": _draw_latency,
        "lag": _draw_lag,
        "cpu": _draw_cpu,
    }
    paths = []
    for plot_name, draw_plot in plots.items():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        if draw_plot(figure.add_subplot(), results):
            paths.append(RESULTS / f"{name}-{plot_name}.png")
            figure.savefig(paths[-1], dpi=120)
    return paths


def _draw_concurrency(axes: Any, results: Results) -> bool:
    """Draw the rate against the calls in flight."""
    for call in CALLS:
        points = [
            (level, results[name_at_level(call, level)])
            for level in LEVELS
            if name_at_level(call, level) in results
        ]
        if points:
            rates = [median(sample.rate for sample in samples) for _, samples in points]
            axes.plot([level for level, _ in points], rates, marker="o", label=call)
    axes.set(xscale="log", xlabel="calls in flight", ylabel="calls/s", ylim=(0, None))
    axes.set_xticks(LEVELS, [str(level) for level in LEVELS])
    return _add_legend(axes)


def _draw_latency(axes: Any, results: Results) -> bool:
    """Draw the latency by percentile, at the concurrency of the table."""
    for call in CALLS:
        if call in results:
            latencies = [
                median(select_percentile(name)(sample) or 0.0 for sample in results[call])
                for name in PERCENTILES
            ]
            axes.plot(PERCENTILES, latencies, marker="o", label=call)
    axes.set(xlabel="percentile", ylabel="ms", yscale="log")
    return _add_legend(axes)


def _draw_lag(axes: Any, results: Results) -> bool:
    """Draw a histogram of the time from a command's commit to its effect in the read model."""
    for name in LAGS:
        if name in results:
            lags = [lag for sample in results[name] for lag in sample.lags]
            axes.hist(lags, bins=60, alpha=0.6, label=f"{name} ({len(lags)})")
    axes.set(xlabel="ms from commit to visible", ylabel="commands", yscale="log")
    return _add_legend(axes)


def _draw_cpu(axes: Any, results: Results) -> bool:
    """Draw the CPU time per operation, stacked by process."""
    calls = [call for call in COSTS if call in results]
    left = dict.fromkeys(calls, 0.0)
    for process in dict.fromkeys(process for call in calls for process in results[call][0].cpu):
        costs = [median(sample.cpu.get(process, 0.0) for sample in results[call]) for call in calls]
        axes.barh(calls, costs, left=list(left.values()), label=process)
        left = {call: left[call] + cost for call, cost in zip(calls, costs, strict=True)}
    axes.invert_yaxis()
    axes.set(xlabel="us of CPU an operation")
    return _add_legend(axes)


def _add_legend(axes: Any) -> bool:
    """Add the legend; return whether the axes contain any data."""
    has_data = bool(axes.get_legend_handles_labels()[0])
    if has_data:
        axes.legend()
    return has_data
