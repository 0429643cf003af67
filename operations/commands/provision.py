"""What a deployment needs before it starts."""

from datetime import timedelta
from pathlib import Path

import click

from operations.cli_output import echo
from operations.cli_parts import CommandGroup
from operations.cli_types import Duration

COMMANDS = {
    "certificates": "operations.commands.provision:certificates",
}


@click.group(cls=CommandGroup, modules=COMMANDS)
def provision() -> None:
    """Make the users, rights and certificates of a deployment."""


@click.command()
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="For the files."
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    help="A name or address of all servers, or as PROCESS=HOST of one; may be given several times.",
)
@click.option(
    "--ttl", type=Duration(), default="90d", show_default=True, help="Lifetime of the certificates."
)
@click.option(
    "--ca-ttl", type=Duration(), default="3650d", show_default=True, help="Lifetime of a new authority."
)
def certificates(folder: Path, hosts: tuple[str, ...], ttl: timedelta, ca_ttl: timedelta) -> None:
    """Make an authority, and a certificate for each process and store.

    Called again it replaces all certificates; the authority stays. Processes read them within a second.
    """
    from operations.provision.certificates import provision

    echo("\n".join(provision(folder, hosts, ttl, ca_ttl)))
