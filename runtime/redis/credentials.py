"""The password of Redis in a file: the option `password_file` of the URL."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.credentials import CredentialProvider

OPTION = "password_file"


class PasswordFile(CredentialProvider):
    """A user whose password is read for every connection, so that a new one counts without a restart."""

    def __init__(self, user: str, path: Path) -> None:
        self._user = user
        self._path = path

    def get_credentials(self) -> tuple[str, str]:
        """Return user and password.

        Raises:
            OSError: the file cannot be read.
        """
        return self._user, self._path.read_text().strip()

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()


def split_url(url: str) -> tuple[str, dict[str, Any]]:
    """Return a URL that redis-py takes, and its argument for the credentials.

    Raises:
        OSError: the password's file cannot be read.
        ValueError: the URL names a password, too.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    if OPTION not in options:
        return url, {}
    if parts.password is not None:
        raise ValueError(f"has a password and the option {OPTION}")
    credentials = PasswordFile(parts.username or "default", Path(options.pop(OPTION)))
    credentials.get_credentials()
    host = parts.netloc.rpartition("@")[2]
    rest = parts._replace(netloc=host, query=urlencode(options))
    return urlunsplit(rest), {"credential_provider": credentials}
