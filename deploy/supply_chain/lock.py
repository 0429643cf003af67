"""Reads uv.lock, through uv."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
UV = str(Path(sys.executable).with_name("uv"))


def export(format_name: str, *options: str) -> str:
    """Return the locked dependencies in a format of uv; fail if uv.lock does not match pyproject.toml."""
    command = (UV, "export", "--locked", "--quiet", "--no-header", "--format", format_name, *options)
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603
