"""What a deployment needs before it starts."""

import asyncio
from datetime import timedelta
from pathlib import Path

import click

from operations.cli_output import echo
from operations.cli_parts import CommandGroup, read_settings
from operations.cli_types import Duration

COMMANDS = {
    "certificates": "operations.commands.provision:certificates",
    "postgres": "operations.commands.provision:postgres",
    "nats": "operations.commands.provision:nats",
    "redis": "operations.commands.provision:redis",
}

in_folder = click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), required=True, help="For the files."
)


@click.group(cls=CommandGroup, modules=COMMANDS)
def provision() -> None:
    """Make the users, rights and certificates of a deployment."""


@click.command()
@in_folder
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


@click.command()
@in_folder
@click.option(
    "--prefix",
    default="diptych_login",
    show_default=True,
    help="The users' names begin with it; for a second database on one server.",
)
@click.option("--rotate", is_flag=True, help="Give all users new passwords.")
def postgres(folder: Path, prefix: str, rotate: bool) -> None:
    """Make a database user for each process, and print their database URLs.

    DIPTYCH_DATABASE_URL is that of the user who migrates. Called again it makes what is missing. A new
    password counts at the next connection.
    """
    from operations.provision.postgres import provision

    urls = asyncio.run(provision(read_settings().database_url, folder, prefix=prefix, rotate=rotate))
    echo("\n".join(f"{process:18} DIPTYCH_DATABASE_URL={url}" for process, url in urls.items()))


@click.command()
@in_folder
@click.option("--rotate", is_flag=True, help="Give all users new keys.")
def nats(folder: Path, rotate: bool) -> None:
    """Make an NKEY for each process, and the configuration with their rights for nats-server to include.

    Called again it makes what is missing. Reload NATS afterwards.
    """
    from operations.provision.nats import RIGHTS, create_url, provision

    echo(f"{provision(folder, rotate=rotate)}: include it in the configuration of nats-server")
    echo("\n".join(f"{name:18} {create_url('nats://HOST:4222', folder, name)}" for name in RIGHTS))


@click.command()
@in_folder
@click.option("--rotate", is_flag=True, help="Give all users new passwords.")
def redis(folder: Path, rotate: bool) -> None:
    """Make a password for each process, and the file of users with their rights for Redis (aclfile).

    Called again it makes what is missing. Let Redis load the file again afterwards (ACL LOAD).
    """
    from operations.provision.redis import RIGHTS, create_url, provision

    echo(f"{provision(folder, rotate=rotate)}: name it as aclfile in the configuration of Redis")
    for name in RIGHTS:
        echo(f"{name:18} {create_url('redis://HOST:6379/0', folder, name)}")
