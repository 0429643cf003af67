"""The settings of the client: the address of the operations server, and the files of token and certificates.

They are read without pydantic, whose import takes longer than a whole `diptych status`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from runtime.process.loopback import is_loopback
from runtime.process.regular_file import UNUSABLE, read_regular_file
from runtime.process.setting_checks import check_address, check_text
from runtime.process.start_error import InvalidSetting
from runtime.process.terminal import is_unicode

ADDRESS, TOKEN = "DIPTYCH_OPERATIONS_ADDRESS", "DIPTYCH_OPERATIONS_TOKEN"
DEFAULTS = {ADDRESS: "127.0.0.1:50056", TOKEN: ".diptych/operations.token"}
"""Those of `runtime.process.settings`."""
CA, INSECURE = "DIPTYCH_TLS_CA", "DIPTYCH_INSECURE"
_TRUE = {"1", "true", "yes", "on", "t", "y"}


@dataclass(frozen=True)
class Target:
    """The operations server, and the token to call it with."""

    address: str
    token: str
    credentials: grpc.ChannelCredentials | None = None
    """None for calls without TLS."""


def read_target() -> Target:
    """Return the target that the environment names.

    Raises:
        InvalidSetting: a setting is malformed, or a file is, or the token would be sent to another machine
            without TLS.
    """
    address = _read_setting(ADDRESS, check_address)
    credentials = _read_credentials()
    if credentials is None:
        _check_plaintext(address)
    return Target(address, _read_token(Path(_read_setting(TOKEN, check_text))), credentials)


def _read_credentials() -> grpc.ChannelCredentials | None:
    if not os.environ.get(CA):
        return None
    from runtime.tls.channel_credentials import read_credentials  # takes a tenth of a second

    return read_credentials(os.environ)


def _check_plaintext(address: str) -> None:
    is_insecure = os.environ.get(INSECURE, "").lower() in _TRUE
    if not is_insecure and not is_loopback(address.rpartition(":")[0]):
        text = f"is of another machine, and the token would be sent in the clear: set {CA}, or {INSECURE}=1"
        raise InvalidSetting(f"{ADDRESS}={address}: {text}")


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
