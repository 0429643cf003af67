"""Upcasters convert a message of an older version to the next version when it is read.

Several versions of a message coexist; code handles only the newest. `contracts/events/` has the upcasters of
events, because every process reads events. Upcasters of requests are kept with the context's rules in the
command server.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

Conversion = Callable[[Any], Message]


@dataclass(frozen=True)
class Upcaster:
    """Converts messages of one version to a later version."""

    source: type[Message]
    target: type[Message]
    convert: Conversion


def chain_upcasters(
    message: type[Message], upcasters: Iterable[Upcaster]
) -> tuple[type[Message], Conversion | None]:
    """Return the newest version that upcasters lead to from a message, and the conversion to it.

    The conversion is None if the message is the newest version itself.

    Raises:
        TypeError: two upcasters have the same source, or the upcasters lead in a circle.
    """
    by_source: dict[type[Message], Upcaster] = {}
    for upcaster in upcasters:
        if by_source.setdefault(upcaster.source, upcaster) is not upcaster:
            raise TypeError(f"two upcasters convert {upcaster.source.DESCRIPTOR.full_name}")
    versions, conversions = [message], list[Conversion]()
    while step := by_source.get(versions[-1]):
        if step.target in versions:
            raise TypeError(f"the upcasters of {step.target.DESCRIPTOR.full_name} lead in a circle")
        versions.append(step.target)
        conversions.append(step.convert)
    return versions[-1], _compose(conversions)


def _compose(conversions: Sequence[Conversion]) -> Conversion | None:
    if len(conversions) < 2:
        return conversions[0] if conversions else None

    def convert_stepwise(message: Message) -> Message:
        for convert in conversions:
            message = convert(message)
        return message

    return convert_stepwise
