"""Writes the JSON of the dashboards beside this package: `make dashboards`."""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.observability.dashboards import callers, machinery
from deploy.observability.dashboards.panel import build_dashboard

FOLDER = Path(__file__).parents[1]


def render() -> dict[Path, str]:
    """Return the content of each file."""
    dashboards = {
        "callers": build_dashboard("diptych-callers", "Diptych: callers", callers.ROWS),
        "machinery": build_dashboard("diptych-machinery", "Diptych: machinery", machinery.ROWS),
    }
    encoder = JSONEncoder(sort_keys=True, indent=2)
    return {
        FOLDER / f"dashboard-{name}.json": encoder.encode(dashboard.build()) + "\n"
        for name, dashboard in dashboards.items()
    }


if __name__ == "__main__":
    for path, content in render().items():
        path.write_text(content)
