"""`diptych dead-letters` with arguments that select nothing."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from diptych.operations.v1.operations_service_pb2 import ListDeadLettersResponse, RetryDeadLettersResponse

from operations.client.api import OperationsApi
from operations.commands import dead_letters as commands


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """The requests to an operations server that has no dead letters."""
    requests: list[Any] = []

    def call(self: OperationsApi, method: object, request: Any, **_: object) -> Any:
        requests.append(request)
        is_list = request.DESCRIPTOR.name.startswith("List")
        return ListDeadLettersResponse() if is_list else RetryDeadLettersResponse()

    monkeypatch.setattr(OperationsApi, "call", call)
    monkeypatch.setenv("DIPTYCH_OPERATIONS_ADDRESS", "localhost:1")
    token = tmp_path / "token"
    token.write_text("token")
    monkeypatch.setenv("DIPTYCH_OPERATIONS_TOKEN", str(token))
    yield requests


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(commands.dead_letters, arguments)
    return result.exit_code, result.output or str(result.exception)


def test_a_retry_of_an_id_without_a_dead_letter_fails(asked: list[Any]) -> None:
    code, out = run("retry", "o-1", "--reason", "why")
    assert (code, "there is no dead letter of o-1" in out) == (1, True)
    code, out = run("retry", "--all", "--reason", "why")
    assert (code, out) == (0, "0 dead letters are tried again within seconds\n")


def test_any_age_selects(asked: list[Any]) -> None:
    assert run("retry", "--older-than", "0s", "--dry-run")[0] == 0
    assert run("list", "--older-than", "999999999d")[0] == 0
    now, first_day = (request.since_before.ToDatetime(UTC) for request in asked)
    assert datetime.now(UTC) - now < timedelta(minutes=1)
    assert first_day == datetime.min.replace(tzinfo=UTC)
