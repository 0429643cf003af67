"""`diptych rehearse`: the code that is installed, run over the recorded events of the live system."""

import os
import sys

import click

from operations.cli_parts import read_settings
from operations.commands import options


@click.command()
@click.option("--contexts", default="", metavar="A,B", help="Only these; default: DIPTYCH_CONTEXTS, or all.")
@click.option(
    "--projection", "projections", multiple=True, help="Only this projection; can be given several times."
)
@click.option(
    "--sample",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="The share of the aggregates, for instance 0.1.",
)
@click.option(
    "--accept",
    "accepted",
    multiple=True,
    metavar="FIELD",
    help="A field that may differ, for instance ordering.order.state; can be given several times.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=max(1, (os.cpu_count() or 1) // 2),
    show_default="one for every second core",
    help="How many processes fold at the same time.",
)
@click.option("--rate", type=click.IntRange(0), default=0, help="Events a second, at most; 0: no limit.")
@options.as_json
def rehearse(
    contexts: str,
    projections: tuple[str, ...],
    sample: float,
    accepted: tuple[str, ...],
    processes: int,
    rate: int,
    as_json: bool,
) -> None:
    """Run the code that is installed here over the recorded events, without effects, and print what differs.

    States, views with their index entries, contributions and histories, and the steps of sagas are compared
    with those that the running release has stored.

    Exit code 0: no difference, or accepted ones only. 1: differences. 2: the rehearsal was not possible.
    """
    from operations.rehearse import command
    from operations.rehearse.rehearsal import Options

    settings = read_settings()
    if contexts:
        settings = settings.model_copy(update={"contexts": contexts})
    chosen = Options(projections=projections, sample=sample, processes=processes, rate=rate)
    sys.exit(command.run(settings, chosen, accepted, as_json=as_json))
