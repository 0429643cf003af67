"""Versions of a message side by side: an older one is brought to the newest before the domain sees it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message


@dataclass(frozen=True)
class NewerVersion:
    """How a message of one version is said in the next."""

    source: type[Message]
    target: type[Message]
    convert: Callable[[Any], Message]


def messages(modules: Sequence[ModuleType], name: str) -> list[Descriptor]:
    """Return the messages of a name in the modules of all versions, the oldest first."""
    found = (module.DESCRIPTOR.message_types_by_name.get(name) for module in modules)
    return [message for message in found if message is not None]


def to_newest(
    message: Descriptor, newest: Descriptor, newer: Sequence[NewerVersion], decode: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Return `decode`, which takes messages of the newest version, for messages of an older one.

    Raises:
        TypeError: nothing says how an older version becomes the newest.
    """
    if message.full_name == newest.full_name:
        return decode
    for step in newer:
        if step.source.DESCRIPTOR.full_name == message.full_name:
            target: Any = step.target.DESCRIPTOR
            convert, onward = step.convert, to_newest(target, newest, newer, decode)
            return lambda older: onward(convert(older))
    raise TypeError(f"nothing brings {message.full_name} to {newest.full_name}")
