"""`make demo`: a stack of its own, each step shown as it happens and checked.

Everything is seen from outside, through the typed stubs that any caller uses. What is not as it should be
ends the demo with exit code 1.
"""

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import click
import grpc

from devstack.demo.company import Company
from devstack.demo.narration import Unexpected, expect, say, step
from devstack.demo.orders import Orders
from devstack.stack import Stack
from devstack.stacks import throwaway
from operations.verify.verification import verify
from runtime.jetstream import connect
from runtime.process import logs
from runtime.process.start_error import StartError


async def main() -> None:
    """Start a stack with throw-away data, run the demo on it, and stop it.

    Raises:
        Unexpected, StartError, AioRpcError: something went wrong.
    """
    logs.configure("error", "console", sys.stderr.buffer)
    with TemporaryDirectory(prefix="diptych-demo-", ignore_cleanup_errors=True) as folder:
        began = monotonic()
        click.echo("Starting PostgreSQL, NATS, Valkey and Diptych's processes on free ports ...")
        async with throwaway(Path(folder), durable=True) as stack:
            click.echo(f"Up after {monotonic() - began:.1f} s")
            async with await connect(stack.settings.nats_url, "demo") as nats:
                orders = await Orders(stack, nats).run()
            await Company(stack, orders).run()
            await _verify(stack)
            click.echo("\nStopping ...")
    click.secho("Every step was as it should be", fg="green")


async def _verify(stack: Stack) -> None:
    step("Fold all events by independent code, and compare everything that is derived from them")
    report = await verify(stack.settings)
    for line in report.page().splitlines():
        say(line)
    expect(report.clean, "nothing differs", report.problems)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (Unexpected, StartError) as error:
        sys.exit(f"The demo failed: {error}")
    except grpc.aio.AioRpcError as error:
        sys.exit(f"The demo failed: {error.code().name}: {error.details()}")
