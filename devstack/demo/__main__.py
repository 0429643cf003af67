"""`make demo`: runs the demo on a temporary stack; prints each step and checks its result.

The demo calls through diptych-client, as any caller does. An unexpected result ends it with exit code 1.
"""

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import click
from diptych_client import OutcomeUnknown, Rejection

from devstack.demo.banking import BankingDemo
from devstack.demo.catalogue import CatalogueDemo
from devstack.demo.customers import CustomersDemo
from devstack.demo.fulfilment import FulfilmentDemo
from devstack.demo.narration import UnexpectedResult, check, print_line, print_step
from devstack.demo.ordering import OrderingDemo
from devstack.demo.purchasing import PurchasingDemo
from devstack.demo.ticketing import TicketingDemo
from devstack.stack import Stack
from devstack.stack_kinds import temporary_stack
from operations.verify.verification import verify
from runtime.jetstream import connect
from runtime.process import logs
from runtime.process.start_error import StartError


async def main(tls: bool = False) -> None:
    """Start a stack with temporary data, run the demo on it, and stop it.

    Args:
        tls: whether the stack uses TLS.

    Raises:
        UnexpectedResult, StartError, Rejection, OutcomeUnknown: a step failed.
    """
    logs.configure("error", "console", sys.stderr.buffer)
    with TemporaryDirectory(prefix="diptych-demo-", ignore_cleanup_errors=True) as folder:
        started = monotonic()
        click.echo("Starting PostgreSQL, NATS, Valkey and Diptych's processes on free ports ...")
        async with temporary_stack(Path(folder), durable=True, tls=tls) as stack:
            click.echo(f"Up after {monotonic() - started:.1f} s")
            customer_id = await CustomersDemo(stack).run()
            await CatalogueDemo(stack).run()
            async with await connect(stack.settings.nats_url, "demo") as nats:
                orders = await OrderingDemo(stack, nats, customer_id).run()
            await FulfilmentDemo(stack, orders, customer_id).run()
            await BankingDemo(stack).run()
            await PurchasingDemo(stack).run()
            await TicketingDemo(stack).run()
            await _verify(stack)
            click.echo("\nStopping ...")
    click.secho("Every step had the expected result", fg="green")


async def _verify(stack: Stack) -> None:
    print_step("Fold all events with independent code, and compare all derived data")
    report = await verify(stack.settings)
    for line in report.to_text().splitlines():
        print_line(line)
    check(report.clean, "nothing differs", report.problems)


if __name__ == "__main__":
    try:
        asyncio.run(main(tls="--tls" in sys.argv))
    except (UnexpectedResult, StartError, Rejection, OutcomeUnknown) as error:
        sys.exit(f"The demo failed: {error}")
