"""Programs that this machine may have, and the advice for those that it lacks."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from runtime.process.start_error import StartError


@dataclass(frozen=True)
class Program:
    """A program of a package that is not a Python one.

    Args:
        title: for messages.
        variable: the environment variable that names another program.
        names: the names under which packages install it.
        advice: how to install it.
    """

    title: str
    variable: str
    names: tuple[str, ...]
    advice: str

    def find(self) -> Path:
        """Return the program's path.

        Raises:
            StartError: it is missing; the message is one line with the advice.
        """
        if chosen := os.environ.get(self.variable):
            if (path := shutil.which(chosen)) is None:
                raise StartError(f"{self.variable}={chosen}: not an executable program")
            return Path(path).absolute()
        for name in self.names:
            if path := shutil.which(name):
                return Path(path)
        raise StartError(f"{self.title} is missing: {self.advice}, or name it by {self.variable}")


PROMETHEUS = Program("Prometheus", "OBSERVE_PROMETHEUS", ("prometheus",), "apt install prometheus")
PROMTOOL = Program("promtool", "OBSERVE_PROMTOOL", ("promtool",), "apt install prometheus")
ALERTMANAGER = Program(
    "Alertmanager",
    "OBSERVE_ALERTMANAGER",
    ("prometheus-alertmanager", "alertmanager"),
    "apt install prometheus-alertmanager",
)
JAVA = Program("Java, for Zipkin,", "OBSERVE_JAVA", ("java",), "apt install openjdk-17-jre-headless")
MAVEN = Program("Maven, to download Zipkin,", "OBSERVE_MAVEN", ("mvn",), "apt install maven")
