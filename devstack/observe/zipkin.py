"""Zipkin on this machine: a trace viewer in one executable jar, which keeps traces in memory."""

import asyncio
import hashlib
import os
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable, Sequence
from pathlib import Path

from devstack.observe.programs import JAVA, MAVEN
from devstack.observe.web_server import WebServer
from runtime.process.start_error import StartError

ARTIFACT = "io.zipkin:zipkin-server:3.6.1:jar:exec"
FILE = "zipkin-server-3.6.1-exec.jar"
SHA256 = "d8326e0ed4f43855dba81228f688554706e52578a7c782d9a90b73f8680654a1"
JAR_VARIABLE = "OBSERVE_ZIPKIN"
"""The environment variable that names another jar of Zipkin."""
_MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.11.0:copy"
_DOWNLOAD_TIMEOUT = 600.0


class Zipkin(WebServer):
    """Zipkin; its spans are sent to `/api/v2/spans`.

    Args:
        folder: for its log.
        jar: the executable jar.
        port: its listening port; None for a free one.
        keep: file descriptors that it inherits.

    Raises:
        StartError: Java is missing.
    """

    name = "Zipkin"
    health_path = "/health"

    def __init__(self, folder: Path, jar: Path, port: int | None = None, keep: Sequence[int] = ()) -> None:
        super().__init__(folder, port, keep)
        self._java = JAVA.find()
        self._jar = jar

    def _command(self) -> list[str | Path]:
        # Its QUERY_PORT alone would listen on all addresses of the machine.
        listening = {"port": self.port, "ip": "127.0.0.1", "protocols[0]": "http"}
        return [
            *(self._java, "-Xmx256m", "-jar", self._jar, "--logging.level.root=WARN"),
            *(f"--armeria.ports[0].{name}={value}" for name, value in listening.items()),
        ]


async def find_jar(cache: Path, print_line: Callable[[str], None]) -> Path:
    """Return Zipkin's jar; Maven downloads it into the cache if it is not there.

    Raises:
        StartError: it cannot be downloaded, or is another one than the pinned one.
    """
    if chosen := os.environ.get(JAR_VARIABLE):
        return _check_chosen(chosen)
    jar = cache / FILE
    if not jar.exists():
        maven = MAVEN.find()
        print_line("Downloading Zipkin, 135 MB, once")
        await _download(maven, cache)
    if await asyncio.to_thread(_digest, jar) != SHA256:
        raise StartError(f"{jar} is not the pinned one: remove it")
    return jar


def _check_chosen(jar: str) -> Path:
    if not Path(jar).is_file():
        raise StartError(f"{JAR_VARIABLE}={jar}: no such file")
    return Path(jar).absolute()


async def _download(maven: Path, cache: Path) -> None:
    arguments = ["-q", "-B", "-Dstyle.color=never", _MAVEN_COPY]
    values = [f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={cache}"]
    run = await asyncio.create_subprocess_exec(maven, *arguments, *values, stdout=PIPE, stderr=STDOUT)
    try:
        output, _ = await asyncio.wait_for(run.communicate(), _DOWNLOAD_TIMEOUT)
    except TimeoutError as error:
        raise StartError(f"Zipkin is not downloaded after {_DOWNLOAD_TIMEOUT:.0f} s") from error
    finally:
        if run.returncode is None:
            run.kill()
    if run.returncode:
        lines = output.decode(errors="replace").strip().splitlines() or ["no output"]
        raise StartError(f"Zipkin cannot be downloaded: {lines[0]}; name its jar by {JAR_VARIABLE}")


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
