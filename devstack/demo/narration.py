"""How the demo tells what it does: its steps, what comes of them, and whether that is as it should be."""

import click


class Unexpected(Exception):
    """A step did not go as it should; the message says what happened instead."""


def step(what: str) -> None:
    """Say what comes next."""
    click.secho(f"\n{what}", bold=True)


def legend() -> None:
    """Say what the times of the hops are."""
    click.secho(f"  {'milliseconds after the call':36}  committed   answered  published    visible", dim=True)


def say(line: str) -> None:
    """Print a line that belongs to a step."""
    click.echo(f"  {line}")


def checked(what: str) -> None:
    """Say that something holds, as was found out before."""
    say(f"{click.style('✓', fg='green')} {what}")


def expect(holds: bool, what: str, found: object) -> None:
    """Say that something holds, or end the demo.

    Raises:
        Unexpected: it does not hold.
    """
    if not holds:
        raise Unexpected(f"not {what}: {found}")
    checked(what)
