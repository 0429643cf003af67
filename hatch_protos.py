"""The wheel of the stubs ships the protos, so that other repositories can import them into theirs."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

TARGET = "diptych/protos"
"""The folder in the wheel, a root of protos."""


class ShipProtos(BuildHookInterface):
    """Adds this repository's protos, and buf's rules that they import."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folders; `version` is the kind of build, and an editable one needs no protos."""
        if version == "editable":
            return
        repository = Path(self.root).parent
        for source, package in (("protos/diptych", "diptych"), (".cache/protos/buf", "buf")):
            if not (repository / source).is_dir():
                raise FileNotFoundError(f"{source} is missing: `make dist` builds the wheels")
            build_data["force_include"][str(repository / source)] = f"{TARGET}/{package}"
