"""The version of the code that this projector runs: its own, its contexts', and the libraries' in Python.

A release number would not do, since a context may come from another distribution, and a mended installation
may keep its number. So the version is a digest of all modules that the process has loaded.
"""

import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path


def compute_code_version() -> str:
    """Return sixteen hex digits that identify the loaded code, without the standard library's.

    The folders in which it is installed do not count, so all machines with the same code agree.
    """
    result = sha256()
    for name, module in sorted(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.endswith(".py") and name.partition(".")[0] not in sys.stdlib_module_names:
            result.update(name.encode())
            with suppress(OSError):  # the installation may be replaced at this moment
                result.update(Path(file).read_bytes())
    return result.hexdigest()[:16]
