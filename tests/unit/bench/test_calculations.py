"""What the bench computes from what it has measured."""

import os
import subprocess
import sys
from time import monotonic, sleep

import pytest

from bench import cores, fulfilments, lag, mix, plan, sagas
from bench.comparison import InvalidRun, Sample, select_cpu
from bench.fulfilment_calls import generate_orders, list_steps, name_method, sum_prices
from bench.process_cost import CpuMeter, list_families
from tests.support.models.fulfilment_simulation import Simulation


def test_orchestration_is_what_direct_commands_do_not_cost() -> None:
    managed = Sample(5.0, {"50": 7.0}, {"manager": 40.0, "PostgreSQL": 25.0, "NATS": 1.0})
    direct = Sample(9.0, {"50": 1.0}, {"PostgreSQL": 10.0, "NATS": 2.0})
    difference = sagas.subtract_cpu(managed, direct)
    assert difference.cpu == {"manager": 40.0, "PostgreSQL": 15.0, "NATS": -1.0}
    assert (select_cpu(difference), difference.rate, difference.latency) == (54.0, 5.0, {"50": 7.0})


def test_fulfilled_orders_are_counted_from_the_first_placed_to_the_last_confirmed() -> None:
    placed = {f"o-{number}": 10.0 + number for number in range(10)}
    confirmed = {order: at + 1.0 for order, at in placed.items()} | {"o-0": 20.0}
    sample = fulfilments.make_sample(placed, confirmed, {})
    assert sample.rate == pytest.approx(10 / 10.0)
    assert sample.latency == {"10": 1000.0, "50": 1000.0, "99": 10_000.0}


def test_lags_are_of_the_same_orders() -> None:
    committed = {"ordering.order.o-1": 10.0, "ordering.order.o-2": 11.0}
    assert lag.find_lags(committed, {"o-1": 10.5, "o-2": 12.0}) == [0.5, 1.0]
    with pytest.raises(InvalidRun, match="2 orders were committed"):
        lag.find_lags(committed, {"o-1": 10.5, "o-3": 12.0})


def test_the_99th_percentile_of_a_hundred_lags_is_the_slowest() -> None:
    sample = lag.make_sample(100, [number / 1000 for number in range(100)], {})
    assert sample.latency == {"50": 50.0, "99": 99.0}


@pytest.mark.parametrize(
    ("calls", "commands", "mixed"), [(1_100, 100, True), (1_100, 60, False), (1_100, 0, False)]
)
def test_a_mix_has_ten_queries_to_a_command(calls: int, commands: int, mixed: bool) -> None:
    assert mix.is_mixed(calls, commands) is mixed


def test_a_quick_bench_makes_fewer_calls_but_some() -> None:
    assert plan.COMPLETE.scale(4_000) == 4_000
    assert 0 < plan.QUICK.scale(4_000) < 4_000
    assert plan.QUICK.scale(1) == 1


def test_direct_commands_are_those_of_the_saga() -> None:
    simulation = Simulation()
    simulation.place_order()
    simulation.settle()
    (order,) = generate_orders("o", 1, 0)
    methods = [name_method(type(command)) for group in list_steps(order) for command in group]
    assert methods == [sent.step.method for sent in simulation.sent]


def test_the_commands_of_an_order_keep_their_ids() -> None:
    (order,) = generate_orders("o", 1, 0)
    first, second = (
        [command.request_id for group in list_steps(order) for command in group]  # type: ignore[attr-defined]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == len(first) == 6


def test_an_orders_total_is_the_sum_of_its_lines() -> None:
    (order,) = generate_orders("o", 1, 0)
    total = sum_prices(order)  # 19.99 + 2 * 20.99 + 3 * 21.99
    assert (total.units, total.nanos, total.currency_code) == (127, 940_000_000, "EUR")


def test_orders_of_a_run_have_different_customers() -> None:
    orders = list(generate_orders("o", 20, 0))
    assert len({order.customer_id for order in orders}) == len({order.order_id for order in orders}) == 20


def test_cpu_time_of_a_process_counts_its_descendants_unless_it_must_not() -> None:
    both = CpuMeter({"all": os.getpid()})
    own = CpuMeter({"own": os.getpid()}, descendants=False)
    deadline = monotonic() + 20
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        difference = 0.0
        while difference < 0.1e6 and monotonic() < deadline:
            sleep(0.02)
            difference = both.measure(1)["all"] - own.measure(1)["own"]
        family = list_families([os.getpid()])
        child.kill()
    assert difference >= 0.1e6
    assert child.pid in family


def test_processes_are_pinned_to_cores_and_released() -> None:
    everything = os.sched_getaffinity(0)
    half, _ = cores.split_cores()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        with cores.pin([child.pid], half):
            assert os.sched_getaffinity(child.pid) == half
        assert os.sched_getaffinity(child.pid) == everything
        child.kill()
