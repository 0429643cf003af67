"""`diptych` and `devstack` as processes, with the settings of a stack."""

import os
import sys
from asyncio.subprocess import Process
from pathlib import Path

from devstack.stack import Stack, variables
from tests.support.harness.forked_process import start_python


async def start_command(stack: Stack, *arguments: str, program: str = "diptych", **more: str) -> Process:
    """Start a command; `more` are further variables."""
    path = Path(sys.executable).with_name(program)
    environment = {**os.environ, **variables(stack.settings), **more}
    return await start_python(str(path), *arguments, environment=environment)


async def diptych(
    stack: Stack, *arguments: str, program: str = "diptych", **more: str
) -> tuple[int, str, str]:
    """Run a command; return its exit code, stdout and stderr."""
    process = await start_command(stack, *arguments, program=program, **more)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()
