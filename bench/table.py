"""The lines of the table that `make bench` prints, with their goals."""

from bench import (
    client,
    fairness,
    idle,
    isolation,
    lag,
    maintenance,
    memory,
    mix,
    overload,
    sagas,
    served_method,
    tls,
)
from bench.comparison import ABSOLUTE, Comparison, select_cpu, select_memory, select_percentile
from bench.services import BATCH_SIZE, DELIVERIES_OF_ONE_ORDER, HOLDS_OF_ONE_SHOW, name_lone, name_on_h2corn

P50, P99 = select_percentile("50"), select_percentile("99")
MANAGED_QUEUE, MANAGED_PACED = (f"{each}, {sagas.MANAGED}" for each in (sagas.QUEUED, sagas.PACED))

SERVICES = (
    Comparison("GetOrder", "echo of GetOrder", 0.95, 1.0),
    Comparison(name_on_h2corn("GetOrder"), "echo of GetOrder", 3, 6),
    Comparison("PlaceOrder", "echo of PlaceOrder", 0.5, 0.8),
    Comparison(name_on_h2corn("PlaceOrder"), "echo of PlaceOrder", 0.8, 1.1),
    Comparison("ReserveStock", "PlaceOrder", 0.7, 1.0),
    Comparison(DELIVERIES_OF_ONE_ORDER, "PlaceOrder", 0.4, 0.7),
    Comparison("RegisterCustomer", "PlaceOrder", 0.7, 1.0),
    Comparison(HOLDS_OF_ONE_SHOW, ABSOLUTE, 1, 2, metric_name="thousands/s", factor=1e-3),
    Comparison(HOLDS_OF_ONE_SHOW, ABSOLUTE, 300, 100, P99, "p99 in ms", at_most=True),
    Comparison("BatchGetOrders", "echo of GetOrder", 8, 20, factor=BATCH_SIZE),
    Comparison("ListOrders", "GetOrder", 0.6, 1.0),
    Comparison(name_on_h2corn("ListOrders"), "GetOrder", 1.5, 3),
    Comparison("the store alone", "a commit a command", 2.5, 3.5),
    Comparison("PlaceOrder", "eventsourcing", 5, 7),
    Comparison(name_on_h2corn("PlaceOrder"), "eventsourcing", 8, 10),
)
TLS = tuple(
    Comparison(tls.name_by_tls(name), name)
    for method in ("GetOrder", "PlaceOrder")
    for name in (method, name_on_h2corn(method))
)
FEED = (
    Comparison("relay", "bare publish", 0.8, 1.0),
    Comparison("projector", "fetch and ack", 0.33, 0.5),
    *(
        Comparison(
            lag.name_system(rate),
            lag.name_script(rate),
            must,
            moonshot,
            select_percentile(percentile),
            f"p{percentile}",
            at_most=True,
        )
        for rate in lag.RATES
        for percentile, must, moonshot in (("50", 3, 1.5), ("99", 5, 2))
    ),
    Comparison(lag.name_system(100), lag.ECHO_PACED, 6, 4, select_cpu, "CPU", at_most=True),
    Comparison(lag.name_system(100), lag.ECHO, metric=select_cpu, metric_name="CPU", at_most=True),
)
SAGAS = (
    Comparison(MANAGED_PACED, sagas.LONE, 25, 15, P50, "p50", at_most=True, against_metric=P50),
    Comparison(MANAGED_PACED, sagas.LONE, 50, 30, P99, "p99", at_most=True, against_metric=P50),
    Comparison(MANAGED_QUEUE, f"{sagas.QUEUED}, {sagas.BY_HAND}"),
    Comparison(
        MANAGED_QUEUE, f"{sagas.QUEUED}, {sagas.BY_HAND}", metric=select_cpu, metric_name="CPU", at_most=True
    ),
    Comparison(
        MANAGED_PACED, f"{sagas.PACED}, {sagas.BY_HAND}", metric=select_cpu, metric_name="CPU", at_most=True
    ),
)
TOGETHER = (
    Comparison(idle.IDLE, ABSOLUTE, 4, 2, select_cpu, "all processes", factor=idle.PERCENT, at_most=True),
    Comparison(isolation.BESIDE, isolation.ALONE, 1.5, 1.2, P99, "p99", at_most=True),
    Comparison(mix.MIX, mix.ECHO),
    Comparison(mix.MIX, mix.ECHO, metric=P99, metric_name="p99", at_most=True),
)
PARTS = (
    *(
        Comparison(f"{name} with all", f"{name} without {part}", 0.90, 0.97)
        for name in ("GetOrder", "PlaceOrder")
        for part in ("telemetry", "validation", "JWT")
    ),
    *(
        Comparison(
            f"{name} {name_on_h2corn('with all')}",
            f"{name} {name_on_h2corn('without telemetry')}",
            0.90,
            0.97,
        )
        for name in ("GetOrder", "PlaceOrder")
    ),
    *(Comparison(f"{name} with 2 workers", f"{name} with all") for name in ("GetOrder", "PlaceOrder")),
    *(
        Comparison(
            client.name_client(method, kind),
            client.name_stub(method, kind),
            1.10,
            1.05,
            P50,
            "p50",
            at_most=True,
        )
        for method in client.METHODS
        for kind in client.KINDS
    ),
)
LOAD = tuple(
    line
    for name, goodput in zip(served_method.METHODS, (0.8, 0.8, 0.9, 0.9), strict=True)
    for line in (
        Comparison(overload.name_overload(name), overload.name_peak(name), goodput, 0.95),
        Comparison(overload.name_overload(name), ABSOLUTE, metric=P99, metric_name="p99 in ms", at_most=True),
        Comparison(
            overload.name_overload(name),
            ABSOLUTE,
            metric=select_memory,
            metric_name="MB more",
            factor=1e-6,
            at_most=True,
        ),
        Comparison(overload.name_later(name), overload.name_peak(name), 0.80, 1.0),
        Comparison(fairness.name_beside(name), fairness.name_alone(name), 0.9, 1.0),
    )
)
LONE = (
    Comparison(name_lone("echo"), ABSOLUTE, metric=P50, metric_name="p50 in ms", at_most=True),
    *(
        Comparison(name_lone(name), ABSOLUTE, must, moonshot, P50, "p50 in ms", at_most=True)
        for name, must, moonshot in zip(
            served_method.METHODS, (None, 0.4, None, 2.2), (None, 0.2, None, 2.0), strict=True
        )
    ),
)
MEMORY = tuple(
    Comparison(name, ABSOLUTE, metric=select_memory, metric_name="kB", factor=1e-3, at_most=True)
    for each in (memory.CONNECTION, memory.WATCH)
    for name in (each, name_on_h2corn(each))
)
MAINTENANCE = tuple(
    Comparison(name(rate), maintenance.ALONE, must, None, metric, metric_name, at_most=True)
    for rate in (0, maintenance.GENTLE)
    for name, must in ((maintenance.name_builds, 1.5), (maintenance.name_rehearsals, 1.2))
    for metric, metric_name in ((P50, "p50"), (P99, "p99"))
)
TABLE = (*SERVICES, *TLS, *FEED, *SAGAS, *TOGETHER, *PARTS, *LOAD, *LONE, *MEMORY, *MAINTENANCE)
