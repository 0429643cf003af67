"""Users of the stores for each kind of process of a stack; its own settings are the administrators'."""

from collections.abc import Mapping
from pathlib import Path

from devstack.stack import variable
from operations.processes import KINDS, ProcessKind
from operations.provision import nats, postgres, redis
from operations.provision.secret_files import read_file


class StoreUsers:
    """Users of NATS and Redis in files of a folder, made as far as they are missing.

    Args:
        folder: of the stack.

    Raises:
        StartError: a file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._nats, self._redis = folder.absolute() / "nats-users", folder.absolute() / "redis-users"
        self.nats_configuration = nats.provision(self._nats)
        """To be included by NATS."""
        self.redis_users = redis.provision(self._redis)
        """The file of users for Redis."""

    def name_administrators(self, urls: Mapping[str, str]) -> dict[str, str]:
        """Return the URLs by setting, with the files of the administrators."""
        return self._complete(urls, nats.ADMINISTRATOR, redis.ADMINISTRATOR)

    def list_variables(self, urls: Mapping[str, str]) -> dict[ProcessKind, dict[str, str]]:
        """Return the variables of each kind of process; one without a user of a store has its plain URL."""
        return {
            kind: {
                variable(setting): url for setting, url in self._complete(urls, kind.name, kind.name).items()
            }
            for kind in KINDS
        }

    def read_redis_url(self, url: str) -> str:
        """Return a URL with the administrator's password itself, for clients that know no file."""
        password = read_file(redis.password_file(self._redis, redis.ADMINISTRATOR)).strip()
        return url.replace("://", f"://{redis.ADMINISTRATOR}:{password}@", 1)

    def _complete(self, urls: Mapping[str, str], nats_user: str, redis_user: str) -> dict[str, str]:
        completed = {}
        if (url := urls.get("nats_url")) is not None:
            completed["nats_url"] = nats.create_url(url, self._nats, nats_user)
        if (url := urls.get("redis_url")) is not None:
            completed["redis_url"] = redis.create_url(url, self._redis, redis_user)
        return completed


class DatabaseUsers:
    """A database user for each kind of process; the settings of the stack are the administrator's.

    Args:
        folder: for the files with their passwords.
        database_url: the administrator's.
    """

    def __init__(self, folder: Path, database_url: str) -> None:
        self._folder = folder
        self._database_url = database_url

    @property
    def variables(self) -> dict[ProcessKind, dict[str, str]]:
        """The variables of each kind; one that needs no database has an address without a password."""
        logins = {login.process: login for login in postgres.list_logins(self._folder)}
        urls = {kind: postgres.create_url(self._database_url, logins.get(kind.name)) for kind in KINDS}
        privileged = variable("allow_privileged_database_user")
        return {kind: {variable("database_url"): url, privileged: "false"} for kind, url in urls.items()}

    async def make(self) -> None:
        """Make them as far as they are missing."""
        await postgres.provision(self._database_url, self._folder, replace_lost=True)
