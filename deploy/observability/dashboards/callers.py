"""The callers' view: how many calls, how they end, how long they take, and which are refused."""

from deploy.observability.dashboards.expressions import percentile, percentiles, rate
from deploy.observability.dashboards.panel import Panel, Rows

_CALLS = "rpc_server_call_duration_seconds"
_QUERIES = 'job="query_server"'
_GET_ORDER = 'rpc_method="diptych.ordering.v1.QueryService/GetOrder"'

ROWS: Rows = {
    "Commands": [
        Panel(
            "Commands by outcome",
            "reqps",
            {"{{outcome}}": rate("commands_processed_total", "outcome")},
            "A rejected command is a correct answer; a failed one is not.",
        ),
        Panel(
            "Rejections and failures by reason",
            "reqps",
            {
                "{{outcome}} {{reason}}": rate(
                    'commands_processed_total{outcome!="accepted"}', "outcome", "reason"
                )
            },
        ),
        Panel(
            "Commands by type",
            "reqps",
            {"{{command_type}}": rate("commands_processed_total", "command_type")},
        ),
        Panel(
            "Success rate",
            "percentunit",
            {
                "accepted, or rejected by a rule": "1 - (sum(diptych:commands_processed:increase5m"
                '{outcome="failed"}) or vector(0)) / sum(diptych:commands_processed:increase5m)'
            },
            "A health figure: at least 99.9 %.",
        ),
        Panel("Time of a command", "s", percentiles("diptych_commands_duration_seconds")),
        Panel(
            "Commands that wait for a transaction",
            "short",
            {"{{instance}}": "sum by (instance) (diptych_commands_queued)"},
        ),
    ],
    "Queries": [
        Panel(
            "Queries by method",
            "reqps",
            {"{{rpc_method}}": rate(f"{_CALLS}_count{{{_QUERIES}}}", "rpc_method")},
        ),
        Panel("Time of a query", "s", percentiles(_CALLS, _QUERIES)),
        Panel(
            "Time of GetOrder",
            "s",
            {"p99": percentile(0.99, _CALLS, _GET_ORDER)},
            "A health figure: at most 100 ms.",
        ),
        Panel(
            "Queries that wait for their token",
            "short",
            {"{{instance}}": "sum by (instance) (diptych_waits_open)"},
            "Many wait if a projection is behind.",
        ),
        Panel("Ends of such waits", "reqps", {"{{outcome}}": rate("diptych_waits_ended_total", "outcome")}),
        Panel("Watches", "short", {"{{instance}}": "sum by (instance) (diptych_watches_open)"}),
    ],
    "Refused calls": [
        Panel(
            "Answers by status",
            "reqps",
            {
                "{{job}} {{rpc_response_status_code}}": rate(
                    f"{_CALLS}_count", "job", "rpc_response_status_code"
                )
            },
        ),
        Panel(
            "Refused at the edge",
            "reqps",
            {"{{reason}}": rate("diptych_calls_refused_total", "reason")},
            "Unauthenticated, denied, invalid, or of an unknown method; `diptych refused` lists them.",
        ),
        Panel(
            "Refused for overload",
            "reqps",
            {"{{job}} {{limit}}": rate("diptych_calls_shed_total", "job", "limit")},
            "Without those that gRPC refuses before they arrive.",
        ),
    ],
}
