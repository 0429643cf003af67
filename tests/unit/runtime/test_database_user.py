from typing import Any

import pytest

from runtime import database_user
from runtime.process.lifecycle import Lifecycle
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting
from tests.support.harness.waiting import until


async def test_a_user_is_refused_as_soon_as_postgresql_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception] = [OSError("away"), TimeoutError(), InvalidSetting("too many rights")]

    async def refuse(*_: Any, **__: Any) -> None:
        raise answers.pop(0)

    monkeypatch.setattr(database_user, "refuse_privileged_user", refuse)
    monkeypatch.setattr(database_user, "RETRY_INTERVAL", 0.01)
    lifecycle, engine = Lifecycle(Settings()), object()
    await database_user.guard_start(lifecycle, engine)  # type: ignore[arg-type]
    assert not lifecycle.stopping.is_set()
    await until(lambda: lifecycle.stopping.is_set())
    assert str(lifecycle.start_error) == "too many rights"
    assert answers == []
