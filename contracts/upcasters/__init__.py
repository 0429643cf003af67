"""Upcasters convert a message of an older version to the next version when it is read.

Several versions of a message coexist in the store. Rules, projections and sagas handle only the newest. This
package has one file of event upcasters for each context, because every process that reads events needs them.
Upcasters of requests are kept with the context's rules in the command server.
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
    """Return the descriptors of a message in the modules that define it, in the order of the modules.

    Args:
        modules: the Protobuf modules of all versions, the oldest first.
        name: the message's name without its package.
    """
    versions = (module.DESCRIPTOR.message_types_by_name.get(name) for module in modules)
    return [message for message in versions if message is not None]


def upcast_to(
    newest: Descriptor, message: Descriptor, upcasters: Sequence[Upcaster], decode: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Return a function that upcasts messages of one version to the newest and decodes them.

    Args:
        newest: the version that `decode` takes.
        message: the version to convert from.
        upcasters: of this message's versions, and possibly of other messages.
        decode: takes a message of the newest version.

    Raises:
        TypeError: the upcasters do not lead from `message` to `newest`.
    """
    if message.full_name == newest.full_name:
        return decode
    for upcaster in upcasters:
        if upcaster.source.DESCRIPTOR.full_name == message.full_name:
            target: Any = upcaster.target.DESCRIPTOR
            convert, decode_target = upcaster.convert, upcast_to(newest, target, upcasters, decode)
            return lambda older: decode_target(convert(older))
    raise TypeError(f"no upcaster leads from {message.full_name} to {newest.full_name}")


def upcast(message: Message, upcasters: Sequence[Upcaster]) -> Message:
    """Convert a message to the newest version that the upcasters lead to, or return it unchanged."""
    for upcaster in upcasters:
        if isinstance(message, upcaster.source):
            return upcast(upcaster.convert(message), upcasters)
    return message
