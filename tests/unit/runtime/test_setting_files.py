"""The files that settings name may hold anything, and the error is one line that names the setting."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.key_ring import Purpose
from process_manager.dispatch.step_client import StepClient
from runtime.grpc.jwks import KeySet
from runtime.process.key_file import KeyFile
from runtime.process.regular_file import MAX_SIZE
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting

KEY = {"id": "k", "purpose": "page-tokens", "algorithm": "blake2b-256", "state": "active"}
CONTENTS = [
    *(
        b"",
        b"\0",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"1e999",
        b'"keys"',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ),
    *(
        b'{"keys": 1}',
        b'{"keys": null}',
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [1]}',
        b'{"keys": [[]]}',
    ),
    *(b'{"keys": [{}]}', b'{"keys": ["k"]}', b'{"keys": [null]}', b'{"keys": [{"kty": 1}]}'),
    *(
        b'{"keys": [{"kty": "RSA", "kid": "k", "n": 1, "e": []}]}',
        b'{"keys": [{"kty": "OKP", "crv": "Ed25519"}]}',
    ),
    *(
        b'{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "\xc3\xa4"}]}',
        b'{"keys": [{"kty": "oct", "k": "!"}]}',
    ),
    b" " * (MAX_SIZE + 1),
]
KEYS = [
    {"from": "tomorrow", "secret": "x" * 44},
    {"from": "2026-01-01", "secret": "x" * 44},
    {"from": "0001-01-01T00:00:00+23:59", "secret": "x" * 44},
    {"from": "9999-12-31T23:59:59-23:59", "secret": "x" * 44},
    {"from": "2026-01-01T00:00:00Z", "secret": "short"},
    {"from": "2026-01-01T00:00:00Z", "secret": "ä" * 44},
    {"from": "2026-01-01T00:00:00Z", "secret": 1},
    {"from": 1, "secret": "x" * 44},
]


def open_key_file(path: str) -> object:
    return KeyFile(path, list(Purpose))


OPEN: dict[str, Callable[[str], object]] = {"DIPTYCH_JWKS": KeySet, "DIPTYCH_KEYS": open_key_file}


def assert_refused(setting: str, open_file: Callable[[str], object], path: Path) -> None:
    with pytest.raises(InvalidSetting) as error:
        open_file(str(path))
    assert str(error.value).startswith(f"{setting}={path}: ")
    assert len(str(error.value)) < 1_000


@pytest.mark.parametrize("setting", OPEN)
@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_a_file_of_other_content_is_refused(tmp_path: Path, setting: str, content: bytes) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(content)
    assert_refused(setting, OPEN[setting], path)


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_a_key_with_other_values_is_refused(tmp_path: Path, key: dict[str, object]) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{**KEY, **key}]}))
    assert_refused("DIPTYCH_KEYS", open_key_file, path)


@pytest.mark.parametrize("setting", OPEN)
def test_what_is_no_regular_file_is_refused(tmp_path: Path, setting: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "loop", tmp_path / "missing", Path("/dev/zero")):
        assert_refused(setting, OPEN[setting], path)


def test_the_file_of_the_process_managers_token_may_be_missing_but_is_no_folder(tmp_path: Path) -> None:
    StepClient(Settings(process_manager_token=str(tmp_path / "missing")))
    with pytest.raises(InvalidSetting, match=r"DIPTYCH_PROCESS_MANAGER_TOKEN=.*: is not a regular file"):
        StepClient(Settings(process_manager_token=str(tmp_path)))
