"""A user of Redis for each process: its password in a file, and the keys and commands that it may use.

The file of users (`ACL`) has digests of the passwords alone.
"""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe

from operations.processes import OPERATIONS_SERVER, PROJECTOR, QUERY_SERVER
from operations.provision.secret_files import make_folder, read_file, write_file

USERS_FILE = "users.acl"
ADMINISTRATOR = "administrator"
"""The user of people, who may do everything."""

READ = "%R~*"
REPORTS = "~process_reports*"
"""The keys in which processes report about themselves."""
VIEWS = "~view:* ~index:* ~counters:* ~event_counters:* ~history:* ~change_feed:*"
PROGRESS = "~build:* ~ready:* ~code:* ~as_of:* ~checkpoints:* ~parked:* ~parked_since:* ~archived:*"
GENERATIONS = "~serving:* ~generations:* ~skips:*"
LEASES = "~lease:* ~projectors:* ~projector_groups"
CHANGES = "&changes:*"
"""The channels of change notifications."""
ALL_CHANNELS = "&*"
"""Redis compares a pattern to subscribe to with the allowed ones letter by letter."""

READING = "+@read +@connection +@transaction -@dangerous +eval +evalsha +script|load +time +info"
WRITING = "+@write -@dangerous -function +type +publish +info +config|get"
REPORTING = "+hset +hdel +zadd +zrem +unlink +pexpire +type"
RECEIVING = "+subscribe +psubscribe +unsubscribe +punsubscribe"

RIGHTS: Mapping[str, str] = {
    PROJECTOR.name: (
        f"{READ} {VIEWS} {PROGRESS} {GENERATIONS} {LEASES} {REPORTS} {CHANGES} {READING} {WRITING}"
    ),
    QUERY_SERVER.name: f"{READ} {REPORTS} {ALL_CHANNELS} {READING} {RECEIVING} {REPORTING}",
    OPERATIONS_SERVER.name: (
        f"{READ} {VIEWS} {PROGRESS} {GENERATIONS} {REPORTS} {CHANGES} {READING} {WRITING}"
    ),
    "housekeeping": f"{READ} {VIEWS} {PROGRESS} {CHANGES} {READING} {WRITING}",
    "verify": f"{READ} {READING}",
    ADMINISTRATOR: "~* &* +@all",
}
"""The users, and what they may do, as rules of Redis's ACL."""


def provision(folder: Path, *, rotate: bool = False) -> Path:
    """Make the passwords that are missing, and write the file of users; return its path.

    Args:
        folder: for the files.
        rotate: whether all users get new passwords.

    Raises:
        StartError: a file cannot be read or written.
    """
    make_folder(folder)
    lines = ["user default off"]
    for name, rights in RIGHTS.items():
        path = password_file(folder, name)
        if rotate or not path.exists():
            write_file(path, token_urlsafe(32) + "\n")
        digest = sha256(read_file(path).strip().encode()).hexdigest()
        lines.append(f"user {name} on #{digest} {rights}")
    path = folder / USERS_FILE
    write_file(path, "\n".join(lines) + "\n")
    return path


def password_file(folder: Path, name: str) -> Path:
    """Return the path of a user's file."""
    return folder / f"{name}.password"


def create_url(url: str, folder: Path, name: str) -> str:
    """Return a URL with a user and its file; the URL itself for a process that has no user."""
    if name not in RIGHTS:
        return url
    separator = "&" if "?" in url else "?"
    named = url.replace("://", f"://{name}@", 1)
    return f"{named}{separator}password_file={password_file(folder, name)}"
