"""Replaces itself with a program that ends with its parent process.

    python child_exec.py PARENT SIGNAL FOLDER PROGRAM [ARGUMENT ...]

A killed stack cannot stop its servers, so the kernel sends them SIGNAL (on Linux; elsewhere they keep
running). FOLDER is `-`, or the data folder of a program that refuses to run as root, like PostgreSQL. Root
then becomes nobody in a user namespace, in which it still owns its files, or the user nobody if there are no
namespaces. This is a script because code between fork and exec is not safe in a process with threads.
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
NOBODY = 65534


def main(parent: int, signal: int, folder: str, command: list[str]) -> None:
    """Replace this process by the command."""
    if folder != "-" and os.geteuid() == 0:
        _leave_root(Path(folder))
    # After the change of user, which clears it.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:
        sys.exit("child_exec: the parent process has ended already")
    os.execv(command[0], command)  # noqa: S606 - the command line is that of the project's own servers


def _leave_root(folder: Path) -> None:
    """Become nobody, and the owner of the folder."""
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
