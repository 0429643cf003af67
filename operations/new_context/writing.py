"""Writes a context's files, all or none."""

from dataclasses import replace
from pathlib import Path

from operations.new_context.files import Place
from operations.new_context.naming import Names, find_names
from runtime.process.start_error import StartError

UNUSED = "unlikely_name"
"""An aggregate whose names no template uses for anything else."""


def write(place: Place, names: Names, root: Path) -> list[str]:
    """Write a context's files; return their paths from the root of the repository.

    Raises:
        StartError: a file exists, or the templates use the aggregate's name. No file was written.
    """
    _check_aggregate(place, names)
    files = place.render(names)
    for path in files:
        if (root / path).exists():
            raise StartError(f"NAME: {names.context} is taken: {path} exists")
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return list(files)


def _check_aggregate(place: Place, names: Names) -> None:
    """Check that no template uses a name of the aggregate for something else.

    Two different names would then become one: a rendered module would have fewer names.
    """
    rendered = place.render(names).values()
    unused = place.render(replace(names, aggregate=UNUSED)).items()
    for text, (path, other_text) in zip(rendered, unused, strict=True):
        if path.endswith(".py"):
            own_names, other_names = find_names(text), find_names(other_text)
            if len(own_names) < len(other_names):
                taken = sorted((own_names & other_names) & set(names.to_variables().values()))
                raise StartError(
                    f"AGGREGATE: {names.aggregate} is taken: the templates use the name {taken[0]}"
                )
