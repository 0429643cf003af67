"""Expressions that several panels need."""


def rate(counter: str, *by: str) -> str:
    """Return the increments a second of a counter, of all processes together."""
    return f"sum{_group(by)} (rate({counter}[1m]))"


def percentile(ratio: float, histogram: str, labels: str = "", *by: str) -> str:
    """Return a percentile of five minutes, of all processes together."""
    selector = f"{{{labels}}}" if labels else ""
    return f"histogram_quantile({ratio}, sum{_group(('le', *by))} (rate({histogram}_bucket{selector}[5m])))"


def percentiles(histogram: str, labels: str = "") -> dict[str, str]:
    """Return the median and the 99th percentile by their legends."""
    return {"p50": percentile(0.5, histogram, labels), "p99": percentile(0.99, histogram, labels)}


def _group(by: tuple[str, ...]) -> str:
    return f" by ({', '.join(by)})" if by else ""
