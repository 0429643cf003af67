"""Audits the locked dependencies, and what installs and builds, for known vulnerabilities, with pip-audit.

pip-audit reports "no known vulnerabilities" of packages that its source does not have, too. So one vulnerable
package is asked for as well: a source without an advisory of it is no source.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import Any

from deploy.supply_chain.lock import ROOT, export

CLEAN, VULNERABLE, NOT_AUDITED = 0, 1, 3
KNOWN_VULNERABLE = ("jinja2", "2.10")  # CVE-2019-10906
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)

Json = dict[str, Any]


def read_pins() -> list[tuple[str, str]]:
    """Return name and version of all locked dependencies, those of other platforms and Pythons included."""
    exported = export(
        "requirements.txt",
        "--all-packages",
        "--all-extras",
        "--all-groups",
        "--no-hashes",
        "--no-emit-workspace",
    )
    texts = (exported, *((ROOT / name).read_text() for name in ("uv.txt", "build.txt")))
    return sorted({pin for text in texts for pin in PIN.findall(text)})


def audit(pins: Sequence[tuple[str, str]], options: Sequence[str]) -> tuple[int, list[str]]:
    """Return the exit code, and lines that say what was found or why nothing was audited.

    Args:
        pins: name and version of each dependency.
        options: of pip-audit, for instance `--osv-url` or `--ignore-vuln`.
    """
    answers: list[Json] = []
    for part in split(pins):
        run = _run_pip_audit([*part, KNOWN_VULNERABLE], options)
        try:
            answers += json.loads(run.stdout)["dependencies"]
        except (ValueError, KeyError):
            cause = (run.stderr.strip().splitlines() or ["no output"])[-1]
            return NOT_AUDITED, [f"Not audited: no answer from an advisory source ({cause})"]
    return judge(pins, answers)


def split(pins: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Return lists that have each package once, because pip-audit takes one version of a package only."""
    versions = Counter[str]()
    parts: list[list[tuple[str, str]]] = []
    for name, version in pins:
        if versions[name] == len(parts):
            parts.append([])
        parts[versions[name]].append((name, version))
        versions[name] += 1
    return parts


def judge(pins: Sequence[tuple[str, str]], answers: Sequence[Json]) -> tuple[int, list[str]]:
    """Return what `audit` does, for pip-audit's answers."""
    advisories = {
        (each["name"], each["version"]): each["vulns"] for each in answers if "skip_reason" not in each
    }
    if not advisories.get(KNOWN_VULNERABLE):
        name, version = KNOWN_VULNERABLE
        return NOT_AUDITED, [f"Not audited: the source knows no advisory of {name} {version}, which has some"]
    if missing := [f"{name} {version}" for name, version in pins if (name, version) not in advisories]:
        return NOT_AUDITED, [f"Not audited: the source does not have {', '.join(missing)}"]
    found = [(pin, vuln) for pin in pins for vuln in advisories[pin]]
    if not found:
        return CLEAN, [f"{len(pins)} locked dependencies: no known vulnerabilities"]
    return VULNERABLE, [
        f"{name} {version}: {vuln['id']}, mended in {', '.join(vuln['fix_versions']) or 'no version'}"
        for (name, version), vuln in found
    ]


def _run_pip_audit(
    pins: Sequence[tuple[str, str]], options: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.writelines(f"{name}=={version}\n" for name, version in pins)
        requirements.flush()
        command = (
            *(sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"),
            *("--vulnerability-service", "osv", "--no-deps", "--disable-pip", *options),
            *("--requirement", requirements.name),
        )
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def main(options: Sequence[str]) -> int:
    """Print the result of the audit; return the exit code."""
    code, lines = audit(read_pins(), options)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
