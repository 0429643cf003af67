"""Wheels of one release belong together: each requires its own version of the stubs."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PinStubs(BuildHookInterface):
    """Adds `diptych-stubs==VERSION` to a wheel's dependencies."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Change the wheel's metadata; `version` is the kind of build, not the project's version."""
        build_data["dependencies"].append(f"diptych-stubs=={self.metadata.version}")
