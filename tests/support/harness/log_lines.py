"""Log lines: of processes that may be killed while they write one, and of this process."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtime.process.logs.lines import render_json
from runtime.process.logs.logger import LEVELS, pipeline
from runtime.process.logs.stream_writer import FileWriter


def parse_log_line(line: str) -> dict[str, Any]:
    """Return a JSON log line; any other text, also a line that a kill has cut off, becomes its message."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError:
        fields = None
    return fields if isinstance(fields, dict) else {"message": line}


def lines_of(log: Path, message: str) -> list[dict[str, Any]]:
    """Return the JSON log lines with this message."""
    lines = map(parse_log_line, log.read_text().splitlines())
    return [line for line in lines if line["message"] == message]


class OwnLines:
    """The lines that this process logs."""

    def __init__(self) -> None:
        self.file = io.BytesIO()

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.getvalue().splitlines()]

    def of(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.all() if line["message"] == message]


@contextmanager
def own_lines(level: str = "debug") -> Iterator[OwnLines]:
    """Log into memory, as JSON, while the context is open."""
    lines, before = OwnLines(), (pipeline.threshold, pipeline.render, pipeline.writer)
    pipeline.threshold, pipeline.render = LEVELS[level], render_json
    pipeline.writer = FileWriter(lines.file)
    try:
        yield lines
    finally:
        pipeline.threshold, pipeline.render, pipeline.writer = before
