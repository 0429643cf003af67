"""The settings of the client: the address of the operations server, and the file of the operator's token.

They are read without pydantic, whose import takes longer than a whole `diptych status`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.process.regular_file import UNUSABLE, read_regular_file
from runtime.process.setting_checks import check_address, check_text
from runtime.process.start_error import InvalidSetting
from runtime.process.terminal import is_unicode

ADDRESS, TOKEN = "DIPTYCH_OPERATIONS_ADDRESS", "DIPTYCH_OPERATIONS_TOKEN"
DEFAULTS = {ADDRESS: "127.0.0.1:50056", TOKEN: ".diptych/operations.token"}
"""Those of `runtime.process.settings`."""


@dataclass(frozen=True)
class Target:
    """The operations server, and the token to call it with."""

    address: str
    token: str


def read_target() -> Target:
    """Return the target that the environment names.

    Raises:
        InvalidSetting: a setting is malformed, or the token's file is.
    """
    address = _read_setting(ADDRESS, check_address)
    return Target(address, _read_token(Path(_read_setting(TOKEN, check_text))))


def _read_setting(name: str, check: Callable[[str], str]) -> str:
    value = os.environ.get(name, DEFAULTS[name])
    if not is_unicode(value):
        raise InvalidSetting(f"{name}: is not UTF-8")
    try:
        return check(value)
    except ValueError as error:
        raise InvalidSetting(f"{name}: {error}") from error


def _read_token(path: Path) -> str:
    try:
        token = read_regular_file(path).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise InvalidSetting(f"{TOKEN}={path}: is not a token") from error
    except UNUSABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidSetting(f"{TOKEN}={path}: cannot read the file: {reason}") from error
    if not token or not token.isprintable() or " " in token:
        raise InvalidSetting(f"{TOKEN}={path}: is not a token")
    return token
