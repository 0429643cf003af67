"""The files of a new context, rendered from the templates."""

from pathlib import Path
from string import Template

TEMPLATES = Path(__file__).with_name("templates")


def render(name: str) -> dict[str, str]:
    """Return the texts of a context's files by path from the root of the repository."""
    return {
        path: Template((TEMPLATES / f"{template}.txt").read_text()).substitute(name=name)
        for template, path in _map_paths(name).items()
    }


def list_paths(name: str) -> list[str]:
    """Return the paths of a context's files from the root of the repository."""
    return list(_map_paths(name).values())


def _map_paths(name: str) -> dict[str, str]:
    """Return the path of each file by its template's path, which is given without the ending `.txt`."""
    templates = (str(path.relative_to(TEMPLATES)) for path in sorted(TEMPLATES.rglob("*.txt")))
    return {
        template: template.replace("NAME", name)
        for template in (path.removesuffix(".txt") for path in templates)
    }
