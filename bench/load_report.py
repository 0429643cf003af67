"""The reports of ghz: a line on stdout, and a page with histograms."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.report import RESULTS


def summarise(name: str, report: dict) -> str:  # type: ignore[type-arg]
    """Return one line for a report of ghz."""
    latency = {entry["percentage"]: entry["latency"] / 1e6 for entry in report["latencyDistribution"] or ()}
    half, most = latency.get(50, 0.0), latency.get(99, 0.0)
    statuses = ", ".join(f"{status} {count:,}" for status, count in report["statusCodeDistribution"].items())
    return f"{name:16}{report['rps']:9,.0f}/s   50 % {half:7.1f} ms   99 % {most:7.1f} ms   {statuses}"


PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body {{ font-family: sans-serif; margin: 2em }} td, th {{ padding: 0.2em 1em; text-align: right }}
.bar {{ background: #37c; height: 1em }} pre {{ font-size: 1.1em }}</style><h1>{title}</h1>{body}"""


def save(scenario: str, names: Sequence[str], reports: Sequence[dict], lag: str) -> Path:  # type: ignore[type-arg]
    """Write reports as JSON and as an HTML page; return the path of the page."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"load-{scenario}-{now:%Y%m%dT%H%M%SZ}.html"
    content = {"at": now.isoformat(), "lag": lag, "runs": dict(zip(names, reports, strict=True))}
    path.with_suffix(".json").write_text(json.dumps(content))
    body = f"<pre>lag of the read model: {lag}</pre>"
    for name, report in zip(names, reports, strict=True):
        histogram = _render_histogram(report["histogram"] or ())
        body += f"<h2>{name}</h2><pre>{summarise(name, report)}</pre>{histogram}"
    path.write_text(PAGE.format(title=f"Load: {scenario}", body=body))
    return path


def _render_histogram(buckets: Sequence[dict]) -> str:  # type: ignore[type-arg]
    highest = max((bucket["count"] for bucket in buckets), default=0) or 1
    rows = (
        f"<tr><td>{1000 * bucket['mark']:.1f} ms<td>{bucket['count']:,}"
        f'<td><div class="bar" style="width: {400 * bucket["count"] / highest:.0f}px"></div>'
        for bucket in buckets
    )
    return f"<table><tr><th>up to<th>calls<th>{''.join(rows)}</table>"
