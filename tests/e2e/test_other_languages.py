"""The stubs for Go, Java and TypeScript build, and a program in each language calls the stack with them."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from devstack.stack import Stack
from operations.processes import COMMAND_SERVER, QUERY_SERVER

ROOT = Path(__file__).parents[2]
VERSION = (ROOT / "VERSION").read_text().strip()


@dataclass(frozen=True)
class Language:
    name: str
    tools: tuple[str, ...]
    build: str
    """Shell commands in the example's folder that run once."""
    run: str


LANGUAGES = (
    Language("go", ("go",), "go vet ./...", "go run ."),
    Language(
        "java",
        ("javac", "mvn"),
        f"mvn -q -B compile -Ddiptych.version={VERSION}",
        f"mvn -q -B exec:java -Ddiptych.version={VERSION}",
    ),
    Language(
        "typescript",
        ("npm",),
        "rm -rf node_modules && npm install && npm run build",
        "npm run --silent start",
    ),
)


def run(command: str, folder: Path, **variables: str) -> str:
    result = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=os.environ | variables,
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return re.sub(r"\x1b\[\d*m", "", result.stdout)  # Maven resets the terminal's colours


@pytest.mark.long
@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_a_program_places_an_order_reads_it_and_is_refused(stack: Stack, language: Language) -> None:
    for tool in language.tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on the PATH")
    run(f"make stubs-{language.name}", ROOT)
    example = ROOT / "examples" / language.name
    run(language.build, example)
    output = run(
        language.run,
        example,
        COMMAND_TARGET=stack.of(COMMAND_SERVER)[0].address,
        QUERY_TARGET=stack.of(QUERY_SERVER)[0].address,
        TOKEN=stack.token("ordering.place", "ordering.own-prices", "ordering.read", "ordering.all"),
    )
    assert output.split() == ["STATE_PLACED", "ORDER_EXISTS"]
