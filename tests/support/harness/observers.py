"""Programs that tests of observability need: a test without one is skipped, and says which is missing."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from devstack.observe.programs import Program
from devstack.observe.zipkin import find_jar
from runtime.process.start_error import StartError

CACHE = Path(__file__).parents[3] / ".cache/observe"


def require(*programs: Program) -> None:
    """Skip the test if a program is missing."""
    try:
        for program in programs:
            program.find()
    except StartError as error:
        pytest.skip(str(error))


async def require_zipkin() -> Path:
    """Return Zipkin's jar, downloaded if necessary; skip the test if it cannot be had."""
    try:
        return await find_jar(CACHE, print)
    except StartError as error:
        pytest.skip(str(error))


def get_json(url: str, **parameters: str) -> Any:
    """Return the answer to a request for JSON."""
    with urlopen(f"{url}?{urlencode(parameters)}" if parameters else url, timeout=10) as answer:
        return json.load(answer)


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """Return the series of an expression, as Prometheus's API has them."""
    answer = get_json(f"{prometheus}/api/v1/query", query=expression)
    assert answer["status"] == "success", answer
    return list(answer["data"]["result"])


def without_programs(folder: Path) -> dict[str, str]:
    """Return variables with which none of the programs is found."""
    python = Path(os.__file__).parents[2] / "bin"
    return {"PATH": f"{folder}:{python}", "OBSERVE_ZIPKIN": ""}
