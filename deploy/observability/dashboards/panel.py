"""Tables of panels, and the dashboards that are built from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import prometheus, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, Row
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef

SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
_WIDTH, _HEIGHT = 8, 7
"""Of a panel, in Grafana's grid of 24 columns."""


@dataclass(frozen=True)
class Panel:
    """A panel of time series.

    Args:
        title: what it shows.
        unit: Grafana's name of the unit, for instance `s` or `short`.
        series: the expressions by legend; labels in braces vary the legend.
        description: what is good and what is not.
    """

    title: str
    unit: str
    series: Mapping[str, str]
    description: str = ""


Rows = Mapping[str, Sequence[Panel]]
"""Panels by the title of their row."""


def build_dashboard(uid: str, title: str, rows: Rows) -> Dashboard:
    dashboard = (
        Dashboard(title)
        .uid(uid)
        .tags(["diptych"])
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
    )
    for name, panels in rows.items():
        dashboard = dashboard.with_row(Row(name))
        for panel in panels:
            dashboard = dashboard.with_panel(_build_panel(panel))
    return dashboard


def _build_panel(panel: Panel) -> timeseries.Panel:
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(SOURCE)
        .min(0)
        .span(_WIDTH)
        .height(_HEIGHT)
        .fill_opacity(10)
        .show_points(VisibilityMode.NEVER)
        .tooltip(common_builders.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    for name, (legend, expression) in zip(ascii_uppercase, panel.series.items(), strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(name)
        built = built.with_target(query)
    return built
