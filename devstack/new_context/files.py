"""The files that a new context brings: the templates, at the same places, with its name in them."""

from pathlib import Path
from string import Template

TEMPLATES = Path(__file__).with_name("templates")


def of(name: str) -> dict[str, str]:
    """Return the texts of a context's files by their paths, from the root of the repository."""
    return {
        path: Template((TEMPLATES / f"{template}.txt").read_text()).substitute(name=name)
        for template, path in _places(name).items()
    }


def paths(name: str) -> list[str]:
    """Return where a context's files lie."""
    return list(_places(name).values())


def _places(name: str) -> dict[str, str]:
    found = (str(path.relative_to(TEMPLATES)) for path in sorted(TEMPLATES.rglob("*.txt")))
    return {template: template.replace("NAME", name) for template in (one[: -len(".txt")] for one in found)}
