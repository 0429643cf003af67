"""The format of log lines, as JSON and on a console."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

SCRIPT = """
import logging, sys, uuid, warnings
from datetime import UTC, datetime
from runtime.process import logs
from runtime.telemetry import trace_context

log = logs.get_logger("relay")
logs.configure(*sys.argv[1:])
log.debug("Below the level")
log.info("Event published", eventId="ledger.cheque.c-1@1", n=3, text="ä\\n", id=uuid.UUID(int=1), odd=object)
log.info("Dated", timestamp=datetime(2026, 1, 2, tzinfo=UTC))
logging.getLogger("nats.aio").warning("slow %s", "consumer")
logging.getLogger("nats.aio").info("chatter")
warnings.warn("careful")
try:
    {}["missing"]
except KeyError:
    log.exception("Failed", method="Do")
    logging.getLogger("lib").exception("Failed too")
for flags in ("01", "00"):
    trace_context.set_current(f"00-{0xabc:032x}-{0xdef:016x}-{flags}")
    log.info("Traced")
"""


def log_lines(*arguments: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, check=True, text=True
    )
    assert run.stderr == ""
    return run.stdout.splitlines()


@pytest.fixture(scope="module")
def lines() -> list[dict[str, object]]:
    return [json.loads(line) for line in log_lines("info", "json")]


def test_a_line_has_its_time_level_logger_message_and_fields(lines: list[dict[str, object]]) -> None:
    time = datetime.fromisoformat(str(lines[0].pop("timestamp")))
    assert time.tzinfo is not None
    assert timedelta(0) <= datetime.now(UTC) - time < timedelta(minutes=5)
    assert lines[0] == {
        "level": "info",
        "logger": "relay",
        "service": "",
        "message": "Event published",
        "eventId": "ledger.cheque.c-1@1",
        "n": 3,
        "text": "ä\n",
        "id": "00000000-0000-0000-0000-000000000001",
        "odd": "<class 'object'>",
    }


def test_a_timestamp_among_the_fields_takes_precedence(lines: list[dict[str, object]]) -> None:
    (line,) = [line for line in lines if line["message"] == "Dated"]
    assert line["timestamp"] == "2026-01-02T00:00:00Z"


def test_lines_below_the_level_are_dropped(lines: list[dict[str, object]]) -> None:
    assert not {"Below the level", "chatter"} & {line["message"] for line in lines}


def test_records_of_libraries_and_warnings_become_lines(lines: list[dict[str, object]]) -> None:
    by_logger = {line["logger"]: line for line in lines}
    assert by_logger["nats.aio"]["message"] == "slow consumer"
    assert by_logger["nats.aio"]["level"] == "warning"
    assert "careful" in str(by_logger["py.warnings"]["message"])


@pytest.mark.parametrize("message", ["Failed", "Failed too"])
def test_an_exception_comes_with_its_traceback(lines: list[dict[str, object]], message: str) -> None:
    (line,) = [line for line in lines if line["message"] == message]
    assert line["level"] == "error"
    assert str(line["exception"]).startswith("Traceback")
    assert str(line["exception"]).endswith("KeyError: 'missing'\n")


def test_a_line_has_the_trace_id_and_that_of_the_span_if_it_is_sampled(
    lines: list[dict[str, object]],
) -> None:
    sampled, unsampled = [line for line in lines if line["message"] == "Traced"]
    assert (sampled["trace_id"], sampled["span_id"]) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert (unsampled["trace_id"], unsampled.get("span_id")) == (f"{0xABC:032x}", None)


def test_console_lines_have_colours_a_short_time_and_a_traceback() -> None:
    lines = log_lines("debug", "console")
    assert "Below the level" in lines[0]
    assert "\x1b[" in lines[1]
    plain = lines[1]
    for code in ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[34m", "\x1b[35m", "\x1b[36m"):
        plain = plain.replace(code, "")
    assert plain[12:].startswith(" [info     ] Event published")
    assert "[relay] eventId=ledger.cheque.c-1@1" in plain
    assert any(line.startswith("KeyError: 'missing'") for line in lines)


def test_levels_have_different_colours() -> None:
    lines = log_lines("info", "console")
    (info,) = [line for line in lines if "Event published" in line]
    (warning,) = [line for line in lines if "slow consumer" in line]
    assert "\x1b[32m\x1b[1minfo" in info
    assert "\x1b[33m\x1b[1mwarning" in warning
