"""The wheels of `make dist`, and environments with nothing but wheels and what they require."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run_tool(*command: str | Path, folder: Path = ROOT, **variables: str) -> str:
    """Run a command in a folder with environment variables, and return its output."""
    result = subprocess.run(
        command, cwd=folder, env=os.environ | variables, check=False, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def build_wheels(folder: Path) -> None:
    run_tool("make", "-o", ".venv/.ready", "dist", f"DIST={folder}")


def build_wheel(project: Path, folder: Path) -> Path:
    _uv("build", "--wheel", "--out-dir", folder, project)
    (wheel,) = folder.glob("*.whl")
    return wheel


class Environment:
    """A virtual environment of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.python = folder / "bin/python"
        self._constraints = folder / "locked.txt"
        _uv("venv", folder)
        # The locked versions, because uv has already downloaded them.
        locked = ("--frozen", "--all-extras", "--no-emit-workspace", "--no-hashes")
        _uv("export", *locked, "--output-file", self._constraints)

    def install(self, *requirements: str | Path) -> None:
        """Install requirements, or wheels by their paths."""
        _uv("pip", "install", "--python", self.python, "--constraint", self._constraints, *requirements)

    def uninstall(self, package: str) -> None:
        _uv("pip", "uninstall", "--python", self.python, package)

    def run(self, program: str, **variables: str) -> str:
        """Run a Python program with environment variables; return its output."""
        command: list[str | Path] = [self.python, "-I", "-c", program]
        result = subprocess.run(
            command, env=os.environ | variables, check=False, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    @property
    def packages(self) -> Path:
        (folder,) = self._folder.glob("lib/*/site-packages")
        return folder


def _uv(*arguments: str | Path) -> None:
    run_tool(ROOT / ".venv/bin/uv", "--quiet", *arguments)
