"""The result of a run, for people and, as JSON, for comparing runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from bench.contest import Comparison, Sample

RESULTS = Path(__file__).with_name("results")


def show(table: Sequence[Comparison], results: Mapping[str, Sequence[Sample]]) -> None:
    """Print what each contestant did, and then how it compares."""
    print(f"\n{'':22}{'rate':>12}{'least':>10}{'most':>10}{'half ms':>9}{'99 % ms':>9}   CPU us")
    for name, samples in results.items():
        rates = [sample.rate for sample in samples]
        half, most = (_middle([getattr(sample, what) for sample in samples]) for what in ("p50", "p99"))
        cpu = {process: median(s.cpu[process] for s in samples) for process in samples[0].cpu}
        print(
            f"{name:22}{median(rates):10,.0f}/s{min(rates):10,.0f}{max(rates):10,.0f}{half:>9}{most:>9}   "
            + ", ".join(f"{process} {each:,.0f}" for process, each in cpu.items())
        )
    print(f"\n{'':22}{'of':24}{'ratio':>7}{'least':>7}{'most':>7}{'must':>7}{'moonshot':>10}")
    for line in table:
        if ratios := line.ratios(results):
            print(
                f"{line.name:22}{line.against:24}{median(ratios):7.2f}{min(ratios):7.2f}{max(ratios):7.2f}"
                f"{line.must or '':>7}{line.moonshot or '':>10}   {line.verdict(median(ratios))}"
            )


def _middle(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.1f}" if known else ""
