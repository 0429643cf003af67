"""An account of NATS with a user for each process: its key (NKEY) is in a file, its rights are listed here.

The configuration has public keys alone. `nats-server` includes it, and takes it over when it is reloaded.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nkeys

from contracts import streams
from contracts.skips import SKIPS_SUBJECT
from contracts.subject_keys import KEYS_SUBJECT
from operations.processes import COMMAND_SERVER, OPERATIONS_SERVER, PROCESS_MANAGER, PROJECTOR, RELAY
from operations.provision.secret_files import make_folder, read_file, write_file
from runtime.jetstream.nats_url import create_inbox_prefix, derive_public_key
from runtime.process.start_error import StartError

ACCOUNT = "DIPTYCH"
CONFIGURATION = "users.conf"
ADMINISTRATOR = "administrator"
"""The user of people, who may do everything in the account."""

_STREAM = streams.JETSTREAM
_PROBE = f"{_STREAM}_PROBE"
READING = (
    f"$JS.API.STREAM.INFO.{_STREAM}",
    f"$JS.API.STREAM.MSG.GET.{_STREAM}",
    f"$JS.API.DIRECT.GET.{_STREAM}",
    f"$JS.API.DIRECT.GET.{_STREAM}.>",
    f"$JS.API.CONSUMER.CREATE.{_STREAM}.>",
    f"$JS.API.CONSUMER.MSG.NEXT.{_STREAM}.*",
    f"$JS.API.CONSUMER.DELETE.{_STREAM}.*",
)
"""What a reader of the stream publishes."""
_ASKING = (streams.RECREATE_SUBJECT, streams.PUBLISHED_SUBJECT, KEYS_SUBJECT)
"""What a reader asks of the relay."""


TEMPLATE = f"""\
accounts {{{{
  {ACCOUNT} {{{{
    jetstream: enabled
    users: [
{{users}}
    ]
  }}}}
}}}}
"""


@dataclass(frozen=True, slots=True)
class Rights:
    """The subjects that a user may publish to, and those that it may receive besides its own inbox."""

    publish: Sequence[str]
    subscribe: Sequence[str] = ()
    replies: bool = False
    """Whether it may reply once to each request that it receives."""


RIGHTS: Mapping[str, Rights] = {
    COMMAND_SERVER.name: Rights([streams.WAKE_SUBJECT]),
    RELAY.name: Rights(
        [
            "diptych.feed.>",
            *(f"$JS.API.STREAM.{verb}.{_STREAM}" for verb in ("CREATE", "UPDATE", "DELETE")),
            *(f"$JS.API.STREAM.{verb}.{_PROBE}" for verb in ("CREATE", "DELETE")),
            _PROBE,
            *READING,
        ],
        [
            *(streams.WAKE_SUBJECT, streams.RECREATE_SUBJECT, streams.PUBLISHED_SUBJECT),
            *(SKIPS_SUBJECT, KEYS_SUBJECT),
        ],
        replies=True,
    ),
    PROJECTOR.name: Rights([*READING, *_ASKING, SKIPS_SUBJECT]),
    PROCESS_MANAGER.name: Rights([*READING, *_ASKING]),
    OPERATIONS_SERVER.name: Rights([*READING, KEYS_SUBJECT]),
    "verify": Rights(READING),
    "housekeeping": Rights([*READING, f"$JS.API.STREAM.UPDATE.{_STREAM}", f"$JS.API.STREAM.PURGE.{_STREAM}"]),
    ADMINISTRATOR: Rights([">"], [">"]),
}
"""The users, and what they may do."""


def provision(folder: Path, *, rotate: bool = False) -> Path:
    """Make the keys that are missing, and write the configuration; return its path.

    Args:
        folder: for the files.
        rotate: whether all users get new keys.

    Raises:
        StartError: a file cannot be written, or is no key.
    """
    make_folder(folder)
    users = []
    for name, rights in RIGHTS.items():
        path = key_file(folder, name)
        if rotate or not path.exists():
            write_file(path, _create_seed() + "\n")
        users.append(_describe(_read_public_key(path), rights))
    path = folder / CONFIGURATION
    lines = [
        "accounts {",
        f"  {ACCOUNT} {{",
        "    jetstream: enabled",
        "    users: [",
        *users,
        "    ]",
        "  }",
        "}",
    ]
    write_file(path, "\n".join(lines) + "\n", 0o644)
    return path


def key_file(folder: Path, name: str) -> Path:
    """Return the path of a user's file."""
    return folder / f"{name}.nk"


def create_url(url: str, folder: Path, name: str) -> str:
    """Return a URL with the file of a user; the URL itself for a process that has no user."""
    separator = "&" if "?" in url else "?"
    return f"{url}{separator}nkey={key_file(folder, name)}" if name in RIGHTS else url


def _create_seed() -> str:
    seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def _read_public_key(path: Path) -> str:
    try:
        return derive_public_key(read_file(path).encode())
    except ValueError as error:
        raise StartError(f"{path}: {error}") from error


def _describe(public_key: str, rights: Rights) -> str:
    receive = [f"{create_inbox_prefix(public_key)}.>", *rights.subscribe]
    permissions = f"publish: {_format(rights.publish)}, subscribe: {_format(receive)}"
    if rights.replies:
        permissions += ', allow_responses: {max: 1, expires: "1m"}'
    return f"      {{nkey: {public_key}, permissions: {{{permissions}}}}}"


def _format(subjects: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{subject}"' for subject in subjects) + "]"
