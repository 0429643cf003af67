"""`make setup` installs uv by its hash: another file of the same name and version is refused."""

import os
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[3]
WHEEL = "uv-0.0.1-py3-none-any.whl"
FILES = {
    "uv.py": "",
    "uv-0.0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: uv\nVersion: 0.0.1\n",
    "uv-0.0.1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "uv-0.0.1.dist-info/RECORD": "",
}


def test_uv_is_installed_by_hash_or_not_at_all(tmp_path: Path) -> None:
    wheel = _make_wheel(tmp_path)
    refused = _install(tmp_path, "0" * 64)
    assert refused.returncode != 0
    assert "make: uv was not installed: its hash is not in " in refused.stdout
    assert not (tmp_path / "installed").exists()
    assert not (tmp_path / "uv.txt").exists()

    taken = _install(tmp_path, sha256(wheel.read_bytes()).hexdigest())
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert (tmp_path / "installed/uv.py").exists()
    assert (tmp_path / "uv.txt").read_text() == (tmp_path / "pin.txt").read_text()


def _make_wheel(folder: Path) -> Path:
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)
    return folder / WHEEL


def _install(folder: Path, digest: str) -> subprocess.CompletedProcess[str]:
    """Run the step of `make setup` that installs uv, into a folder and from the wheel there alone."""
    (folder / "pin.txt").write_text(f"uv==0.0.1 --hash=sha256:{digest}\n")
    python = folder / "bin/python"
    python.parent.mkdir(exist_ok=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_TARGET": str(folder / "installed")}
    command = ("make", "-s", "-C", ROOT, "pinned-uv", f"VENV={folder}", f"UV_PIN={folder / 'pin.txt'}")
    return subprocess.run(command, env={**os.environ, **pip}, capture_output=True, text=True, check=False)
