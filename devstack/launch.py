"""Becomes another program that ends when whoever started this ends; run as a script, before that program.

    python launch.py PARENT SIGNAL FOLDER PROGRAM [ARGUMENT ...]

A stack that is killed cannot stop its servers, so the kernel does it, with SIGNAL (Linux; elsewhere they
stay). FOLDER is `-`, or the program's data where it refuses to run as root, as PostgreSQL does: root then
becomes nobody in a user namespace, in which it still owns its files, or nobody itself where there is none.
A script of its own, since code between fork and exec is not safe in a process that has threads.
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
NOBODY = 65534


def main(parent: int, signal: int, folder: str, command: list[str]) -> None:
    """Become the command."""
    if folder != "-" and os.geteuid() == 0:
        _leave_root(Path(folder))
    # After the change of user, which clears it.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        sys.exit("whoever started this has ended already")
    os.execv(command[0], command)  # noqa: S606 - the command line is that of the project's own servers


def _leave_root(folder: Path) -> None:
    """Be nobody from here on, and the owner of the folder."""
    if ctypes.CDLL(None).unshare(CLONE_NEWUSER) == 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{NOBODY} 0 1")
        Path("/proc/self/gid_map").write_text(f"{NOBODY} 0 1")
        return
    os.chown(folder, NOBODY, NOBODY)
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
