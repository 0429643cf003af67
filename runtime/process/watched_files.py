"""Files that a running process reads again whenever they change."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from runtime.process import logs
from runtime.process.regular_file import UNUSABLE, Signature, read_regular_file, read_signature
from runtime.process.start_error import InvalidSetting
from runtime.telemetry import metrics

CHECK_INTERVAL = 1.0
"""Seconds between two looks at the files."""

log = logs.get_logger(__name__)

Content = TypeVar("Content")


class WatchedFiles(Generic[Content]):
    """The content of files that belong together. Files that cannot be used leave the previous content in use.

    Files are replaced one after another, so a failure is reported when it is found twice.

    Args:
        setting: that names the first file, for instance `DIPTYCH_TLS_CERTIFICATE`.
        paths: of the files.
        parse: takes the bytes of the files and returns their content, or raises one of UNUSABLE.

    Raises:
        InvalidSetting: the files cannot be used.
    """

    def __init__(self, setting: str, paths: Sequence[str], parse: Callable[..., Content]) -> None:
        self._setting = setting
        self._paths = [Path(path) for path in paths]
        self._parse = parse
        self.on_change: list[Callable[[], object]] = []
        """Called after each change of the content."""
        self.error = ""
        """Why the files cannot be used now; empty if they can."""
        self._failed: tuple[object, str] | None = None
        try:
            self._signature = self._sign()
            self.content = self._load()
        except UNUSABLE as error:
            raise InvalidSetting(f"{setting}: cannot use {self._describe_files()}: {error}") from error
        metrics.FILES_VALID.set(1, setting)

    async def run(self) -> None:
        """Read the files again after each change, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            await self.reload()

    async def reload(self) -> None:
        """Read the files if one has changed."""
        signature: list[Signature] = []
        try:
            signature = await asyncio.to_thread(self._sign)
            if signature == self._signature and self._failed is None:
                return
            content = await asyncio.to_thread(self._load)
        except UNUSABLE as error:
            self._note_failure(signature, str(error))
            return
        self._failed, self.error = None, ""
        metrics.FILES_VALID.set(1, self._setting)
        if signature != self._signature:
            self._signature, self.content = signature, content
            log.info("Files loaded", setting=self._setting, files=self._describe_files())
            for notify in self.on_change:
                notify()

    def _note_failure(self, signature: Sequence[Signature], error: str) -> None:
        failure = (signature, error)
        if failure == self._failed and error != self.error:
            self.error = error
            metrics.FILES_VALID.set(0, self._setting)
            log.error(
                "Files invalid; keeping their previous content",
                setting=self._setting,
                files=self._describe_files(),
                error=error,
            )
        self._failed = failure

    def _sign(self) -> list[Signature]:
        return [read_signature(path) for path in self._paths]

    def _load(self) -> Content:
        return self._parse(*map(read_regular_file, self._paths))

    def _describe_files(self) -> str:
        return ", ".join(map(str, self._paths))
