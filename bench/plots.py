"""Plots of a run's results, saved beside its JSON."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.comparison import Sample, select_percentile
from bench.lag import RATES, name_script, name_system
from bench.report import RESULTS
from bench.sagas import BY_HAND, MANAGED, PACED, QUEUED
from bench.services import LEVELS, name_at_level

CALLS = ("echo of GetOrder", "GetOrder", "PlaceOrder")
PERCENTILES = ("50", "90", "95", "99", "99.9")
LAGS = [name(rate) for name in (name_script, name_system) for rate in (RATES[0], RATES[-1])]
FULFILMENTS = [f"{load}, {orchestrator}" for load in (QUEUED, PACED) for orchestrator in (MANAGED, BY_HAND)]
COSTS = ("echo of GetOrder", "GetOrder", "ListOrders", "BatchGetOrders", "PlaceOrder", "ReserveStock")
FEED_COSTS = [name_system(rate) for rate in RATES]

Results = Mapping[str, Sequence[Sample]]


def draw(name: str, results: Results) -> list[Path]:
    """Save the plots for which there are samples as `<name>-<plot>.png`; return their paths."""
    mpl.rcParams.update({"axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True, "font.size": 9})
    plots: Mapping[str, Callable[[Any, Results], bool]] = {
        "concurrency": _draw_concurrency,
        "latency": _draw_latency,
        "lag": _draw_lag,
        "cpu": partial(_draw_cpu, COSTS),
        "cpu-feed": partial(_draw_cpu, FEED_COSTS),
        "cpu-sagas": partial(_draw_cpu, FULFILMENTS),
        "fulfilment": _draw_fulfilment,
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


def _draw_fulfilment(axes: Any, results: Results) -> bool:
    """Draw the share of orders that are confirmed within a time."""
    for name in FULFILMENTS:
        if name in results:
            lags = sorted(lag for sample in results[name] for lag in sample.lags)
            axes.plot(lags, [number / len(lags) for number in range(1, len(lags) + 1)], label=name)
    axes.set(xlabel="ms from placed to confirmed", ylabel="share of orders", xscale="log")
    return _add_legend(axes)


def _draw_cpu(names: Sequence[str], axes: Any, results: Results) -> bool:
    """Draw the CPU time per operation, stacked by process; negative differences are left out."""
    calls = [call for call in names if call in results]
    left = dict.fromkeys(calls, 0.0)
    for process in dict.fromkeys(process for call in calls for process in results[call][0].cpu):
        costs = [max(0.0, median(s.cpu.get(process, 0.0) for s in results[call])) for call in calls]
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
