"""The demo's output: its steps, their results, and whether each result is the expected one."""

import click


class UnexpectedResult(Exception):
    """A step had another result than expected; the message describes it."""


def print_step(title: str) -> None:
    click.secho(f"\n{title}", bold=True)


def print_legend() -> None:
    """Print the column titles of the timings."""
    click.secho(f"  {'milliseconds after the call':36}  committed   answered  published    visible", dim=True)


def print_line(line: str) -> None:
    """Print an indented line of the current step."""
    click.echo(f"  {line}")


def print_check(result: str) -> None:
    """Print a result that was checked."""
    print_line(f"{click.style('✓', fg='green')} {result}")


def check(holds: bool, result: str, actual: object) -> None:
    """Print a result if it holds.

    Raises:
        UnexpectedResult: it does not hold.
    """
    if not holds:
        raise UnexpectedResult(f"not {result}: {actual}")
    print_check(result)
