"""A process's key ring: refused at start if it cannot be used, replaced while running if it can."""

import asyncio
from pathlib import Path

import pytest

from contracts.key_ring import Purpose
from operations import keys
from runtime.process import key_file
from runtime.process.key_file import KeyFile
from runtime.process.start_error import StartError
from runtime.telemetry.metrics import KEY_RING_VALID
from tests.support.harness.keys import FILE, write_ring
from tests.support.harness.waiting import until

PURPOSES = list(Purpose)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_ring(tmp_path / "keys.json")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        ("", "not a key ring"),
        ('{"keys": []}', "no active key for consistency-tokens"),
        ("{", "not a key ring"),
    ],
)
def test_a_process_does_not_start_with_a_bad_ring(tmp_path: Path, content: str | None, problem: str) -> None:
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StartError, match=problem) as error:
        KeyFile(str(path), PURPOSES)
    assert str(error.value).startswith(f"DIPTYCH_KEYS={path}: cannot use the key ring: ")
    assert "\n" not in str(error.value)


async def test_a_changed_file_replaces_the_keys(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "CHECK_INTERVAL", 0.01)
    current = KeyFile(str(path), PURPOSES)
    running = asyncio.create_task(current.run())
    new = keys.create(path, "page-tokens")
    await until(lambda: new in current.get_ring().keys)
    running.cancel()


def replace(path: Path, content: bytes | None) -> None:
    """Replace the file's content, or remove the file."""
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


async def test_a_bad_file_leaves_the_previous_keys_and_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[str] = []
    monkeypatch.setattr(key_file.log, "error", lambda message, **fields: errors.append(fields["error"]))
    current = KeyFile(str(path), PURPOSES)
    ring = current.get_ring()
    for bad in (b"", b"[]", b'{"keys": []}', None):
        replace(path, bad)
        await current.reload()
        await current.reload()
        assert current.get_ring() is ring
        assert KEY_RING_VALID.read_values() == {(): 0}
    assert len(errors) == 4  # each once
    replace(path, FILE)
    await current.reload()
    assert list(current.get_ring().keys) == list(ring.keys)
    assert KEY_RING_VALID.read_values() == {(): 1}


async def test_an_unchanged_file_is_not_read_again(path: Path) -> None:
    current = KeyFile(str(path), PURPOSES)
    ring = current.get_ring()
    await current.reload()
    assert current.get_ring() is ring


def test_a_file_that_others_may_read_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(key_file.log, "warning", lambda message, **_: warnings.append(message))
    KeyFile(str(path), PURPOSES)
    assert warnings == []
    path.chmod(0o640)
    KeyFile(str(path), PURPOSES)
    assert warnings == ["Key ring open to others"]
