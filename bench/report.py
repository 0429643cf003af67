"""The results of a run: tables on stdout, and all samples as JSON.

`python -m bench.report bench/results/bench.json ...` prints the tables of finished runs again.
"""

import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

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
    print("\n" + "\n".join(format_table(describe(table, results))))


def format_table(lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the Markdown table of lines as `describe` returns them and the JSON has them."""
    yield "| measure | relative to | better | ratio (min to max) | CPU us | goal | moonshot |  |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for line in lines:
        costs = [f"{cost:,.0f}" for cost in line["cpu"] if cost is not None]
        cells = (
            line["title"],
            line["against"] or "itself",
            line["better"],
            f"{line['ratio']:.2f} ({line['least']:.2f} to {line['most']:.2f})",
            " / ".join(costs),
            *("" if line[name] is None else f"{line[name]:.3g}" for name in ("must", "moonshot")),
            line["verdict"],
        )
        yield "| " + " | ".join(cells) + " |"


def save(
    name: str,
    table: Sequence[Comparison],
    results: Mapping[str, Sequence[Sample]],
    failures: Sequence[str] = (),
) -> Path:
    """Write the table, all samples and the failures to `results/<name>.json`; return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "table": describe(table, results),
        "failures": list(failures),
        "samples": {name: [asdict(sample) for sample in samples] for name, samples in results.items()},
    }
    path.write_text(json.dumps(content, indent=1))
    return path


def describe(
    table: Sequence[Comparison], results: Mapping[str, Sequence[Sample]]
) -> list[Mapping[str, object]]:
    """Return the lines of the table whose subjects were measured."""
    return [_describe(line, ratios, results) for line in table if (ratios := line.ratios(results))]


def _describe(
    line: Comparison, ratios: Sequence[float], results: Mapping[str, Sequence[Sample]]
) -> Mapping[str, object]:
    return {
        "title": line.title,
        "against": line.against,
        "better": line.better,
        "ratio": median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "cpu": [_find_cost(results.get(name, ())) for name in (line.name, line.against)],
        "must": line.must,
        "moonshot": line.moonshot,
        "verdict": line.verdict(median(ratios)),
    }


def _find_cost(samples: Sequence[Sample]) -> float | None:
    """Return the median CPU time of an operation; None if it was not measured."""
    costs = [cost for sample in samples if (cost := select_cpu(sample)) is not None]
    return median(costs) if costs else None


def _format_median(values: Sequence[float | None]) -> str:
    """Return the median with one decimal; empty if there are no values."""
    numbers = [value for value in values if value is not None]
    return f"{median(numbers):.1f}" if numbers else ""


if __name__ == "__main__":
    for file in sys.argv[1:]:
        content = json.loads(Path(file).read_text())
        print(f"{file}, measured {content['when']}\n")
        print("\n".join(format_table(content["table"])))
        print("".join(f"\nFAILED {failure}" for failure in content["failures"]))
