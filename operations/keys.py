"""The key ring's file: listed, checked and changed, for instance to rotate a key.

Every change replaces the file as a whole, so that no process reads half of it.
"""

import json
import os
import secrets
import stat
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from contracts.key_ring import (
    OPTIONAL_PURPOSES,
    SIGNING_PURPOSES,
    KeyRing,
    KeyState,
    Purpose,
    list_algorithms,
)
from runtime.process.regular_file import UNUSABLE, read_regular_file
from runtime.process.start_error import InvalidSetting, StartError
from runtime.process.terminal import escape

_SECRET_SIZE = 32
"""Bytes."""

Entry = dict[str, Any]
"""A key in the file; fields and purposes of other releases are kept."""


def list_keys(path: Path) -> str:
    """Return a line for each key, without its secret."""
    rows = [("id", "purpose", "algorithm", "state", "from")]
    rows += [
        (escape(key["id"]), escape(key["purpose"]), key["algorithm"], key["state"], key["from"])
        for key in _read(path)
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def read_public_fields(path: Path) -> list[Entry]:
    """Return the keys without their secrets, but with the public keys of those that have one."""
    public_keys = read_public_keys(path)
    entries = [{name: value for name, value in key.items() if name != "secret"} for key in _read(path)]
    return [
        entry
        | ({"public_key": _encode_bytes(public_keys[entry["id"]])} if entry["id"] in public_keys else {})
        for entry in entries
    ]


def read_public_keys(path: Path) -> dict[str, bytes]:
    """Return the public keys of the keys that are not revoked, by id."""
    keys = KeyRing.parse(_encode(_read(path))).keys.values()
    return {
        key.id: key.get_public_key()
        for key in keys
        if key.purpose in SIGNING_PURPOSES and key.state != KeyState.REVOKED
    }


def list_public_keys(path: Path) -> str:
    """Return a line for each public key: its id and its 32 bytes in URL-safe Base64."""
    return "\n".join(f"{id_} {_encode_bytes(key)}" for id_, key in read_public_keys(path).items())


def _encode_bytes(content: bytes) -> str:
    return urlsafe_b64encode(content).decode()


def check(path: Path) -> list[str]:
    """Check the file as the processes do; return warnings, and a line that says so.

    Raises:
        InvalidSetting: the processes refuse the file.
    """
    entries = _read(path)
    lines = []
    needed = [purpose for purpose in Purpose if purpose not in OPTIONAL_PURPOSES]
    try:
        KeyRing.parse(path.read_bytes()).check(needed, datetime.now(UTC).timestamp())
    except UNUSABLE as error:
        raise InvalidSetting(f"DIPTYCH_KEYS={path}: {error}") from error
    if (mode := path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        lines.append(f"{path} is open to others ({stat.filemode(mode)})")
    existing = {entry["purpose"] for entry in entries if entry["state"] == KeyState.ACTIVE}
    lines += [f"no active key for {purpose}" for purpose in sorted(OPTIONAL_PURPOSES - existing)]
    unknown = sorted({entry["purpose"] for entry in entries} - set(Purpose))
    lines += [f"unknown purpose {escape(purpose)} (known: {', '.join(Purpose)})" for purpose in unknown]
    return [*lines, f"{path}: {len(entries)} keys, one to sign with for each purpose"]


def create(path: Path, purpose: str, algorithm: str | None = None, after: timedelta = timedelta()) -> str:
    """Add a new key with a random secret; return its id. The file need not exist.

    Args:
        path: of the key ring.
        purpose: what it signs.
        algorithm: one of those for the purpose; the default if it is None.
        after: the time until it signs. Every process has to read the file within it.
    """
    entries = _read(path) if path.exists() else []
    begin = (datetime.now(UTC) + after).replace(microsecond=0)
    entry = {
        "id": secrets.token_hex(4),
        "purpose": purpose,
        "algorithm": algorithm or list_algorithms(purpose)[0],
        "state": KeyState.ACTIVE.value,
        "from": begin.isoformat().replace("+00:00", "Z"),
        "secret": urlsafe_b64encode(secrets.token_bytes(_SECRET_SIZE)).decode(),
    }
    _write(path, [*entries, entry])
    return str(entry["id"])


def set_state(path: Path, key_id: str, state: str) -> None:
    """Change the state of a key.

    Raises:
        StartError: there is no such key, or no key would be left to sign with.
    """
    entries = _read(path)
    changed = [entry for entry in entries if entry["id"] == key_id]
    if not changed:
        raise StartError(f"{path}: there is no key {key_id}")
    changed[0]["state"] = state
    try:
        purposes = [each for each in Purpose if each == changed[0]["purpose"]]
        KeyRing.parse(_encode(entries)).check(purposes, datetime.now(UTC).timestamp())
    except ValueError as error:
        raise StartError(f"{path}: not changed: {error}") from error
    _write(path, entries)


def ensure(path: Path, purposes: Iterable[str] = tuple(Purpose)) -> None:
    """Create the file, or the keys that it lacks, so that there is one for each purpose."""
    existing = {entry["purpose"] for entry in _read(path)} if path.exists() else set()
    for purpose in purposes:
        if purpose not in existing:
            create(path, purpose)


def _read(path: Path) -> list[Entry]:
    try:
        content = read_regular_file(path)
        KeyRing.parse(content)
    except UNUSABLE as error:
        raise InvalidSetting(f"DIPTYCH_KEYS={path}: {error}") from error
    return list(json.loads(content)["keys"])


def _encode(entries: Iterable[Entry]) -> bytes:
    return json.dumps({"keys": list(entries)}, indent=2).encode() + b"\n"


def _write(path: Path, entries: Iterable[Entry]) -> None:
    path = path.resolve()  # a symbolic link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor, which has the mode from the start
            file.write(_encode(entries))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            _copy_access(path, draft)
        draft.replace(path)
    except OSError as error:
        raise StartError(f"DIPTYCH_KEYS={path}: cannot write the key ring: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def _copy_access(source: Path, target: Path) -> None:
    """Give a file the owner and mode of another, so that the same processes can read it."""
    status = source.stat()
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))
