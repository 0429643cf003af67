"""Files of a process: refused at start if they cannot be used, replaced while running if they can."""

import asyncio
from pathlib import Path

import pytest

from runtime.process import watched_files
from runtime.process.start_error import InvalidSetting
from runtime.process.watched_files import WatchedFiles
from runtime.telemetry.metrics import FILES_VALID
from tests.support.harness.waiting import until

SETTING = "DIPTYCH_TEST_FILES"


def parse(first: bytes, second: bytes) -> tuple[bytes, bytes]:
    if first != second:
        raise ValueError("they differ")
    return first, second


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"1")
    return [str(tmp_path / "a"), str(tmp_path / "b")]


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    logged: list[str] = []
    monkeypatch.setattr(watched_files.log, "error", lambda _, **fields: logged.append(fields["error"]))
    return logged


def write(path: str, content: bytes) -> None:
    """Replace a file, so that its inode changes however coarse the clock is."""
    new = Path(path).with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def rename(path: str, name: str) -> None:
    Path(path).rename(name)


def test_files_that_cannot_be_used_are_an_invalid_setting(paths: list[str]) -> None:
    write(paths[1], b"2")
    with pytest.raises(InvalidSetting, match=rf"^{SETTING}: cannot use {paths[0]}, {paths[1]}: they differ"):
        WatchedFiles(SETTING, paths, parse)
    Path(paths[1]).unlink()
    with pytest.raises(InvalidSetting, match="No such file"):
        WatchedFiles(SETTING, paths, parse)


async def test_changed_files_replace_the_content(paths: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched_files, "CHECK_INTERVAL", 0.01)
    files = WatchedFiles(SETTING, paths, parse)
    changes: list[object] = []
    files.on_change.append(lambda: changes.append(files.content))
    running = asyncio.create_task(files.run())
    for path in paths:
        write(path, b"2")
    await until(lambda: files.content == (b"2", b"2"))
    running.cancel()
    assert changes == [(b"2", b"2")]


async def test_invalid_files_leave_the_content_and_are_reported_once(
    paths: list[str], errors: list[str]
) -> None:
    files = WatchedFiles(SETTING, paths, parse)
    write(paths[0], b"2")
    for _ in range(4):
        await files.reload()
    assert files.content == (b"1", b"1")
    assert errors == [files.error] == ["they differ"]
    assert FILES_VALID.read_values()[(SETTING,)] == 0
    write(paths[0], b"1")
    await files.reload()
    assert (files.error, FILES_VALID.read_values()[(SETTING,)]) == ("", 1)


async def test_files_that_are_replaced_one_after_another_are_no_error(
    paths: list[str], errors: list[str]
) -> None:
    files = WatchedFiles(SETTING, paths, parse)
    write(paths[0], b"2")
    await files.reload()
    write(paths[1], b"2")
    await files.reload()
    assert files.content == (b"2", b"2")
    assert errors == []


async def test_a_file_that_vanished_leaves_the_content_and_may_come_back(
    paths: list[str], errors: list[str]
) -> None:
    files = WatchedFiles(SETTING, paths, parse)
    rename(paths[0], paths[0] + ".away")
    for _ in range(3):
        await files.reload()
    assert files.content == (b"1", b"1")
    assert len(errors) == 1
    rename(paths[0] + ".away", paths[0])
    await files.reload()
    assert files.error == ""
