"""The process manager warns before its token expires, and the local stack renews it before that."""

import asyncio
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any

import jwt
import pytest

from devstack import stack_kinds, tokens
from process_manager.dispatch import token_expiry
from process_manager.dispatch.token_expiry import TokenExpiry
from process_manager.dispatch.token_source import TokenFile
from runtime.process.settings import Settings
from runtime.process.start_error import StartError
from tests.support.harness.waiting import until

WARNING = ("warning", "Token of the process manager expires soon")
ERROR = ("error", "Token of the process manager has expired")


class Manager:
    """A token's file, the clock, and the lines that the check logs."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = file
        self.lines: list[tuple[str, str]] = []
        self.now = 0.0
        self._expiry = TokenExpiry(TokenFile(str(file)))
        levels = {level: self._log(level) for level in ("warning", "error")}
        monkeypatch.setattr(token_expiry, "log", SimpleNamespace(**levels))
        monkeypatch.setattr(token_expiry, "time", lambda: self.now)

    def _log(self, level: str) -> Callable[..., None]:
        return lambda message, **_: self.lines.append((level, message))

    def write(self, **claims: Any) -> None:
        self.file.write_text(jwt.encode(claims, "a secret of the test, not verified here"))

    def check(self, now: float) -> list[tuple[str, str]]:
        """Return the lines of a check at this time."""
        self.now = now
        self.lines.clear()
        self._expiry.check()
        return self.lines.copy()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    return Manager(tmp_path / "token", monkeypatch)


def test_a_token_that_is_not_renewed_is_reported_twice(manager: Manager) -> None:
    manager.write(iat=0, exp=1_000)
    lines = [manager.check(now) for now in (0, 899, 901, 950, 1_000, 2_000)]
    assert lines == [[], [], [WARNING], [], [ERROR], []]


def test_a_renewed_token_is_watched_in_turn(manager: Manager) -> None:
    manager.write(iat=0, exp=1_000)
    assert manager.check(901) == [WARNING]
    manager.write(iat=901, exp=1_901)
    assert [manager.check(now) for now in (902, 1_500, 1_802)] == [[], [], [WARNING]]


@pytest.mark.parametrize("content", [None, "", "no token", "a.b.c", "é"])
def test_a_file_without_a_token_is_no_concern_of_this_check(manager: Manager, content: str | None) -> None:
    if content is not None:
        manager.file.write_text(content)
    assert manager.check(1_000) == []


@pytest.mark.parametrize("claims", [{}, {"exp": 10}, {"iat": 1}, {"iat": 1, "exp": 1e300}])
def test_a_token_without_times_is_no_concern_either(manager: Manager, claims: dict[str, Any]) -> None:
    manager.write(**claims)
    assert manager.check(1_000) == []


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    tokens.make_keys(tmp_path / "jwks.json")
    files = {name: str(tmp_path / name) for name in ("process_manager_token", "operations_token")}
    return Settings(jwks=str(tmp_path / "jwks.json"), **files)  # type: ignore[arg-type]


def test_the_tokens_in_files_live_for_hours_and_are_private(settings: Settings) -> None:
    tokens.write_process_manager_token(settings)
    tokens.write_operations_token(settings)
    for file in map(Path, (settings.process_manager_token, settings.operations_token)):
        claims = jwt.decode(file.read_text(), options={"verify_signature": False})
        assert 3_600 <= claims["exp"] - claims["iat"] <= 86_400
        assert file.stat().st_mode & 0o777 == 0o600


def test_the_tokens_in_files_live_no_longer_than_servers_accept(settings: Settings) -> None:
    limited = settings.model_copy(update={"max_token_lifetime": timedelta(hours=1)})
    tokens.write_process_manager_token(limited)
    token = Path(settings.process_manager_token).read_text()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 3_600
    with pytest.raises(StartError, match="DIPTYCH_MAX_TOKEN_LIFETIME is 1:00:00"):
        tokens.mint(limited, [], "alice", timedelta(hours=2))


@pytest.mark.parametrize("named", [False, True])
def test_the_local_stack_renews_the_files_that_are_its_own(tmp_path: Path, named: bool) -> None:
    own = tmp_path / "stack"
    own.mkdir()
    names = {"process_manager_token": str(tmp_path / "user.token")} if named else {}
    stack = stack_kinds.local_stack(own, Settings(**names), lambda _: print)  # type: ignore[arg-type]
    try:
        written = sorted(own.glob("*.token"))
        assert [file.stem for file in written] == ["operations", *(["process-manager"] if not named else [])]
        for file in written:
            file.write_text("old")
        stack.write_tokens()
        assert all(file.read_text().count(".") == 2 for file in written)
        assert not (tmp_path / "user.token").exists()
    finally:
        for descriptor in stack.keep:
            os.close(descriptor)


async def test_the_local_stack_renews_its_tokens_and_tries_again_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokens, "RENEWAL_CHECK", 0.01)
    writes: list[float] = []
    problems: list[str] = []

    def write() -> None:
        writes.append(time())
        if len(writes) == 1:
            raise OSError("planted")

    renewal = asyncio.create_task(tokens.keep_renewed(write, timedelta(seconds=0.2), problems.append))
    await until(lambda: len(writes) >= 4)
    renewal.cancel()
    assert problems == ["the tokens cannot be renewed: planted"]
    assert writes[3] - writes[2] >= 0.05
