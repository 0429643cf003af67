"""The expressions of alerts and dashboards, and the metrics that they name."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parents[3] / "deploy/observability"
_METRIC = re.compile(
    r"\bdiptych:[\w:]+|\b(?:diptych|commands|events|read_model|outbox|rpc_server)_\w+|\bup\b"
)
_LABELS = re.compile(r"\bby \(([^)]*)\)|(?<=[{,\s])(\w+)(?==~?\"|!=\")")


@dataclass(frozen=True)
class Expression:
    """An expression, and where it stands: an alert's name, or a panel's title."""

    place: str
    text: str

    @property
    def metrics(self) -> set[str]:
        return set(_METRIC.findall(self.text))

    @property
    def labels(self) -> set[str]:
        """The labels by which it selects and groups."""
        names = (name for found in _LABELS.findall(self.text) for part in found for name in part.split(","))
        return {name.strip() for name in names} - {""}


def read_rules() -> list[Mapping[str, Any]]:
    """Return all rules of alerts.yml."""
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def read_alerts() -> list[Mapping[str, Any]]:
    return [rule for rule in read_rules() if "alert" in rule]


def read_recorded() -> dict[str, str]:
    """Return the expressions that Prometheus records, by name."""
    return {rule["record"]: rule["expr"] for rule in read_rules() if "record" in rule}


def list_expressions() -> list[Expression]:
    """Return the expressions of all alerts and panels."""
    alerts = [Expression(rule.get("alert") or rule["record"], rule["expr"]) for rule in read_rules()]
    dashboards = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("dashboard-*.json"))]
    return [*alerts, *(each for dashboard in dashboards for each in _read_panels(dashboard))]


def _read_panels(dashboard: Mapping[str, Any]) -> Iterator[Expression]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield Expression(f"{dashboard['title']}, {panel['title']}", target["expr"])
