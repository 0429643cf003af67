"""The results of a run: tables on stdout, and all samples as JSON."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.comparison import Comparison, Sample, select_percentile

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
    print("\n| measure | relative to | better | ratio (min to max) | goal | moonshot |  |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for line in table:
        if ratios := line.ratios(results):
            title = line.name if line.metric_name == "rate" else f"{line.name}, {line.metric_name}"
            ratio = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            bounds = f"{line.must or '':4} | {line.moonshot or '':4}"
            verdict = line.verdict(median(ratios))
            print(f"| {title:38} | {line.against:28} | {line.better:6} | {ratio:22} | {bounds} | {verdict} |")


def save(name: str, table: Sequence[Comparison], results: Mapping[str, Sequence[Sample]]) -> Path:
    """Write the table and all samples to `results/<name>.json`; return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    lines = [_describe(line, ratios) for line in table if (ratios := line.ratios(results))]
    content = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "table": lines,
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
