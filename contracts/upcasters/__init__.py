"""Upcasters bring a message of an older version to the next one, where it is read.

Several versions of a message live side by side. Rules, projections and sagas know the newest alone. The
upcasters of a context's events are in a file of their own here, since every process that reads events uses
them; those of its requests are with its rules.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message


@dataclass(frozen=True)
class Upcaster:
    """Converts messages of one version to the next version."""

    source: type[Message]
    target: type[Message]
    convert: Callable[[Any], Message]


def find_versions(modules: Sequence[ModuleType], name: str) -> list[Descriptor]:
    """Return the messages of this name in the modules of all versions, the oldest first."""
    versions = (module.DESCRIPTOR.message_types_by_name.get(name) for module in modules)
    return [message for message in versions if message is not None]


def upcast_to(
    newest: Descriptor, message: Descriptor, upcasters: Sequence[Upcaster], decode: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Return `decode`, which takes messages of the newest version, for messages of any older version.

    Raises:
        TypeError: the upcasters do not lead from the older version to the newest.
    """
    if message.full_name == newest.full_name:
        return decode
    for upcaster in upcasters:
        if upcaster.source.DESCRIPTOR.full_name == message.full_name:
            target: Any = upcaster.target.DESCRIPTOR
            convert, onward = upcaster.convert, upcast_to(newest, target, upcasters, decode)
            return lambda older: onward(convert(older))
    raise TypeError(f"no upcaster leads from {message.full_name} to {newest.full_name}")


def upcast(message: Message, upcasters: Sequence[Upcaster]) -> Message:
    """Return a message in the newest version that the upcasters lead to."""
    for upcaster in upcasters:
        if isinstance(message, upcaster.source):
            return upcast(upcaster.convert(message), upcasters)
    return message
