"""Wrong clocks of a stack's processes."""

import os
from pathlib import Path

from tests.support.harness.wrong_clock import sitecustomize

WRONG_CLOCK = Path(sitecustomize.__file__).parent


class ProcessClocks:
    """The clocks of all processes of a stack, which a test sets together; its servers' clocks stay right."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)
        path = os.pathsep.join(filter(None, (str(WRONG_CLOCK), os.environ.get("PYTHONPATH"))))
        self.environment = {"PYTHONPATH": path, "WRONG_CLOCK_FILE": str(self._file)}

    def set(self, seconds: float) -> None:
        """Set the clocks to the real time plus these seconds."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)
