"""Log lines of processes that may be killed while they write one."""

import json
from pathlib import Path
from typing import Any


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
