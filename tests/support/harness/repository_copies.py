"""Copies of the repository, for tests that change files and run the repository's own checks on them."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROTOS = ".cache/protos"
"""The imported protos; `make` gets them anew unless a copy has them."""


def copy_repository(tree: Path) -> None:
    """Copy all files that git tracks or would add, with this environment's tools and imported protos."""
    subprocess.run(["make", "-C", str(ROOT), f"{PROTOS}/.ready"], check=True, capture_output=True)
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():  # git still lists deleted files
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)
    (tree / ".venv").mkdir()
    for path in (ROOT / ".venv").iterdir():
        (tree / ".venv" / path.name).symlink_to(path)
    # Newer than all other files, so that make does not install the copy into this environment.
    (tree / ".venv/.ready").touch()
    shutil.copytree(ROOT / PROTOS, tree / PROTOS, copy_function=shutil.copy)


def run(tree: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with this environment's tools on the copy's own modules and stubs."""
    paths = {
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tree}:{tree / 'generated'}:{tree / 'client'}",
    }
    environment = {**os.environ, **paths, **variables}
    return subprocess.run(command, cwd=tree, env=environment, check=False, capture_output=True, text=True)


def assert_passes(tree: Path, *command: str, **variables: str) -> None:
    result = run(tree, *command, **variables)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
