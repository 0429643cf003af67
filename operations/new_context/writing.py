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

    Raises:
        StartError: one does.
    """
    unused = replace(names, aggregate=UNUSED)
    forms = list(zip(unused.to_variables().values(), names.to_variables().values(), strict=True))
    forms.sort(key=lambda form: len(form[0]), reverse=True)  # a plural before its singular

    def rename(name: str) -> str:
        for old, new in forms:
            name = name.replace(old, new)
        return name

    for path, source in place.render(unused).items():
        used = find_names(source) if path.endswith(".py") else set()
        if clashes := sorted({rename(name) for name in used if rename(name) != name} & used):
            text = f"{names.aggregate} is taken: the templates use the name {clashes[0]}"
            raise StartError(f"AGGREGATE: {text}")
