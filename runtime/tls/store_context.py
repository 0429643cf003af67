"""The TLS of connections to a store, from files that may change while the process runs."""

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.process import logs
from runtime.process.regular_file import Signature, read_signature

log = logs.get_logger(__name__)


class StoreContext:
    """An SSL context that new connections use; made again when a file has changed.

    Files that cannot be used leave the previous context in use.

    Args:
        setting: that names the files, for instance `DIPTYCH_DATABASE_URL`.
        paths: of the files.
        create: returns a context with their content, or raises an OSError.

    Raises:
        OSError: a file cannot be used.
    """

    def __init__(self, setting: str, paths: Sequence[str], create: Callable[[], ssl.SSLContext]) -> None:
        self._paths = [Path(path) for path in paths]
        self._create = create
        self._failures = logs.RepeatedErrors(log, "Certificates of a store not read again", setting=setting)
        self._signature = self._sign()
        self._context = create()

    def get(self) -> ssl.SSLContext:
        try:
            signature = self._sign()
            if signature != self._signature:
                self._context, self._signature = self._create(), signature
            self._failures.reset()
        except OSError as error:
            self._failures.report(error)
        return self._context

    def _sign(self) -> list[Signature]:
        return [read_signature(path) for path in self._paths]
