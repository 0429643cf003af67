"""The processes that fold long streams for command servers."""

from pathlib import Path


def list_fold_helpers(server: int) -> list[int]:
    """Return the process ids of a command server's fold helpers."""
    helpers = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == server and b"command_server.fold_helper" in (folder / "cmdline").read_bytes():
                helpers.append(int(folder.name))
        except OSError:  # it has ended meanwhile
            continue
    return helpers
