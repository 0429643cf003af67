"""Stores on other machines are reached by TLS, or the log says so."""

import pytest

from runtime.process.settings import Settings
from runtime.tls import plaintext_stores
from runtime.tls.plaintext_stores import find_plaintext, warn_of_plaintext


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("database_url", "postgresql://d@10.0.0.1/d?sslmode=verify-full"),
        ("database_url", "postgresql://d@10.0.0.1/d?sslmode=require"),
        ("database_url", "postgresql://d@localhost/d"),
        ("database_url", "postgresql:///d?host=/run/postgresql"),
        ("nats_url", "tls://a:4222,wss://b"),
        ("nats_url", "nats://[::1]:4222"),
        ("redis_url", "rediss://redis.internal:6379/0"),
        ("redis_url", "redis://:secret@127.0.0.1:6379/0"),
    ],
)
def test_a_store_that_is_encrypted_or_here_is_fine(setting: str, url: str) -> None:
    assert not list(find_plaintext(Settings(**{setting: url})))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "url", "found"),
    [
        ("database_url", "postgresql://d:secret@10.0.0.1/d", ("PostgreSQL", "10.0.0.1")),
        ("database_url", "postgresql://d@10.0.0.1/d?sslmode=prefer", ("PostgreSQL", "10.0.0.1")),
        ("database_url", "postgresql://d@localhost/d?host=db.internal", ("PostgreSQL", "db.internal")),
        ("nats_url", "tls://a:4222,nats://u:secret@b:4222", ("NATS", "b")),
        ("redis_url", "redis://redis.internal/0", ("Redis", "redis.internal")),
    ],
)
def test_a_store_elsewhere_in_the_clear_is_reported(
    setting: str, url: str, found: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, str]] = []
    monkeypatch.setattr(plaintext_stores.log, "warning", lambda _, **fields: lines.append(fields))
    warn_of_plaintext(Settings(**{setting: url}))  # type: ignore[arg-type]
    assert lines == [{"store": found[0], "host": found[1]}]
    warn_of_plaintext(Settings(**{setting: url}, insecure=True))  # type: ignore[arg-type]
    assert len(lines) == 1
