"""The `devstack` command line: the local stack in the foreground, and tokens that its servers accept."""

from datetime import timedelta

import click

from operations.cli_parts import CommandGroup, read_settings
from operations.cli_types import Duration


@click.group(cls=CommandGroup)
def main() -> None:
    """Run Diptych on this machine. The DIPTYCH_* variables name servers to use instead of starting them."""


with_tls = click.option("--tls", is_flag=True, help="Use TLS between all processes, and to NATS.")


@main.command()
@with_tls
def up(tls: bool) -> None:
    """Run the local stack until Ctrl-C."""
    from devstack import up

    up.run(read_settings(), tls=tls)


@main.command()
@with_tls
def observe(tls: bool) -> None:
    """Run the local stack with Prometheus, Alertmanager and a trace viewer until Ctrl-C."""
    from devstack import up

    up.run(read_settings(), observed=True, tls=tls)


@main.command()
@click.option("--scope", "scopes", multiple=True, help="A scope; may be given several times.")
@click.option("--subject", default="alice", show_default=True, help="The caller's name.")
@click.option("--on-behalf-of", help="For whom it acts; needs the scope act.on-behalf.")
@click.option("--ttl", type=Duration(), default="1h", show_default=True, help="Its lifetime.")
def token(scopes: tuple[str, ...], subject: str, on_behalf_of: str | None, ttl: timedelta) -> None:
    """Print an access token for the local stack."""
    from devstack import tokens

    click.echo(tokens.mint(read_settings(), scopes, subject, ttl, on_behalf_of))


if __name__ == "__main__":
    main()
