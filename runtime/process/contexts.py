"""The contexts of a process: chosen by `--contexts` or DIPTYCH_CONTEXTS, loaded from their manifests."""

import argparse
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

from contracts.manifest import Manifest, find_manifests
from runtime.process.settings import Settings
from runtime.process.start_error import InvalidSetting, StartError

T = TypeVar("T")


def choose_contexts(settings: Settings) -> list[Manifest]:
    """Return the contexts of the setting `contexts`: all installed ones if it is empty.

    Raises:
        StartError: a manifest is invalid, or the setting names an unknown context.
    """
    try:
        manifests = find_manifests()
    except ValueError as error:
        raise StartError(str(error)) from error
    try:
        names = parse_names(settings.contexts, manifests) or list(manifests)
    except ValueError as error:
        raise InvalidSetting(f"DIPTYCH_CONTEXTS: {error}") from error
    return [manifests[name] for name in names]


def parse_names(text: str, known: Collection[str]) -> list[str]:
    """Return the names in a list separated by commas, each once.

    Raises:
        ValueError: a name is unknown.
    """
    names = list(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"unknown context {unknown[0]} (known: {', '.join(known)})")
    return names


class _Default(str):
    """The names in the setting, which argparse parses as it does those of the command line."""


def add_contexts_argument(
    parser: argparse.ArgumentParser, settings: Settings, known: Mapping[str, object]
) -> None:
    """Add the argument `--contexts`, whose value is a list of known names."""

    def parse(text: str) -> list[str]:
        try:
            names = parse_names(text, known)
        except ValueError as error:
            source = "DIPTYCH_CONTEXTS: " if isinstance(text, _Default) else ""
            raise argparse.ArgumentTypeError(f"{source}{error}") from error
        if known and not names:
            raise argparse.ArgumentTypeError("must name at least one context")
        return names

    parser.add_argument(
        "--contexts",
        type=parse,
        default=_Default(settings.contexts) or ",".join(known),
        metavar="A,B",
        help="contexts to run (default: DIPTYCH_CONTEXTS, or all: %(default)s)",
    )


def name_group(manifests: Iterable[Manifest], kind: str) -> str:
    """Return the name of the group of processes that share the work on these contexts.

    Processes that run the same contexts divide the partitions among themselves.
    """
    return ",".join(sorted(manifest.name for manifest in manifests if getattr(manifest, kind)))


def load_modules(manifests: Iterable[Manifest], kind: str) -> list[Any]:
    """Import and return the modules of one kind, a field of `Manifest`; skip contexts without one.

    Raises:
        StartError: there is no such module.
    """
    modules = []
    for manifest in manifests:
        if name := getattr(manifest, kind):
            try:
                modules.append(import_module(name))
            except ModuleNotFoundError as error:
                raise StartError(f"context {manifest.name}: {kind}: {error}") from error
    return modules


def load_parts(manifests: Iterable[Manifest], kind: str, attribute: str, part: type[T]) -> list[T]:
    """Return the parts that the modules of one kind define.

    Args:
        manifests: the contexts.
        kind: a field of `Manifest` that names a module.
        attribute: the module's attribute with a part or a sequence of parts.
        part: the type of the parts.

    Raises:
        StartError: there is no such module, or its attribute is missing or of another type.
    """
    parts: list[T] = []
    for module in load_modules(manifests, kind):
        value = getattr(module, attribute, None)
        found: Sequence[Any] = value if isinstance(value, Sequence) else (value,)
        if not all(isinstance(each, part) for each in found):
            raise StartError(f"{module.__name__}: {attribute} must be of {part.__name__}")
        parts += found
    return parts
