"""The results of a run: tables on stdout, and all samples as JSON."""

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.comparison import Comparison, Sample, select_cpu, select_percentile

RESULTS = Path(__file__).with_name("results")


def print_tables(table: Sequence[Comparison], results: Mapping[str, Sequence[Sample]]) -> None:
    """Print the samples of each subject, and then the comparisons as a Markdown table."""
    print(f"\n{'':32}{'rate':>12}{'least':>10}{'most':>10}{'half ms':>9}{'99 % ms':>9}   CPU us")
    for name, samples in results.items():
        rates = [sample.rate for sample in samples]
        half, most = (
            _format_median([select_percentile(percentile)(sample) for sample in samples])
            for percentile in ("50", "99")
        )
        cpu = {process: median(s.cpu[process] for s in samples) for process in samples[0].cpu}
        print(
            f"{name:32}{median(rates):10,.0f}/s{min(rates):10,.0f}{max(rates):10,.0f}{half:>9}{most:>9}   "
            + ", ".join(f"{process} {cost:,.0f}" for process, cost in cpu.items())
        )
    print("\n" + "\n".join(format_table(table, results)))


def format_table(table: Sequence[Comparison], results: Mapping[str, Sequence[Sample]]) -> Iterator[str]:
    """Yield the lines of the Markdown table of all comparisons whose subjects were measured."""
    yield "| measure | relative to | better | ratio (min to max) | CPU us | goal | moonshot |  |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for line in table:
        if ratios := line.ratios(results):
            yield "| " + " | ".join(_format_line(line, ratios, results)) + " |"


def _format_line(
    line: Comparison, ratios: Sequence[float], results: Mapping[str, Sequence[Sample]]
) -> Sequence[str]:
    costs = [_format_cost(results.get(name, ())) for name in (line.name, line.against)]
    return (
        line.title,
        line.against or "itself",
        line.better,
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        " / ".join(filter(None, costs)),
        f"{line.must or ''}",
        f"{line.moonshot or ''}",
        line.verdict(median(ratios)),
    )


def _format_cost(samples: Sequence[Sample]) -> str:
    """Return the median CPU time of an operation; empty if it was not measured."""
    costs = [cost for sample in samples if (cost := select_cpu(sample)) is not None]
    return f"{median(costs):,.0f}" if costs else ""


def save(
    name: str,
    table: Sequence[Comparison],
    results: Mapping[str, Sequence[Sample]],
    failures: Sequence[str] = (),
) -> Path:
    """Write the table, all samples and the failures to `results/<name>.json`; return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    lines = [_describe(line, ratios) for line in table if (ratios := line.ratios(results))]
    content = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "table": lines,
        "failures": list(failures),
        "samples": {name: [asdict(sample) for sample in samples] for name, samples in results.items()},
    }
    path.write_text(json.dumps(content, indent=1))
    return path


def _describe(line: Comparison, ratios: Sequence[float]) -> Mapping[str, object]:
    return {
        "name": line.name,
        "against": line.against,
        "metric": line.metric_name,
        "better": line.better,
        "ratio": median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "must": line.must,
        "moonshot": line.moonshot,
        "verdict": line.verdict(median(ratios)),
    }


def _format_median(values: Sequence[float | None]) -> str:
    """Return the median with one decimal; empty if there are no values."""
    numbers = [value for value in values if value is not None]
    return f"{median(numbers):.1f}" if numbers else ""
