"""The events of a context in all versions. Every process decodes them here, to the newest version.

How it works. Recorded events keep the version in which they were recorded, permanently. A table, built once,
maps the full name of each message to a function that parses its bytes and applies the upcasters from there to
the newest version. For the newest version itself that function is Protobuf's own, unless the message may have
sealed data. So rules, projections,
sagas and verify have code for the newest version alone, and an upcaster exists once.
"""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol

from diptych.privacy.v1.privacy_pb2 import SubjectForgotten
from google.protobuf.message import Message

from contracts.forgetting import FORGOTTEN
from contracts.personal_data import check_open, may_be_sealed
from contracts.upcasters import Conversion, Upcaster, chain_upcasters

Parser = Callable[[bytes], Message]


class UnknownEvent(Exception):
    """The event's type is not one of the context's: it may be newer than this code."""


class EncodedEvent(Protocol):
    """An event as it is stored and published."""

    @property
    def type(self) -> str:
        """The full name of the event's message."""

    @property
    def data(self) -> bytes: ...


class EventTypes:
    """The messages of a context's events, and the upcasters between their versions.

    Args:
        modules: the modules generated from `events.proto`, one per version, oldest first.
        upcasters: lead from every older version of a message to its newest.

    Raises:
        TypeError: the upcasters do not lead from every older version to the newest, lead from a newer version
            to an older one or in a circle, or convert a message that is not in the modules.
    """

    def __init__(self, modules: Sequence[ModuleType], upcasters: Sequence[Upcaster] = ()) -> None:
        self.upcasters = tuple(upcasters)
        messages = _list_messages(modules)
        self.descriptors: tuple[Any, ...] = tuple(message.DESCRIPTOR for message in messages)
        """Those of all messages in all versions."""
        _check_upcasters(messages, self.upcasters)
        self._newest: dict[str, type[Message]] = {}
        self._parsers: dict[str, Parser] = {}
        for message in messages:
            name = message.DESCRIPTOR.full_name
            self._newest[name], convert = chain_upcasters(message, self.upcasters)
            self._parsers[name] = _build_parser(message, convert)
        self._parsers[FORGOTTEN] = SubjectForgotten.FromString
        self._newest_by_short_name = _check_names([m for m in messages if self.is_newest(m)])
        self._packages = " or ".join(module.DESCRIPTOR.package for module in modules)

    @property
    def names(self) -> frozenset[str]:
        """The full names of all messages in all versions, those that are parts of events included."""
        return frozenset(self._newest)

    def __contains__(self, name: str) -> bool:
        return name in self._newest

    def newest(self, name: str) -> type[Message]:
        """Return the newest version of a message.

        Args:
            name: the full name of any version.

        Raises:
            UnknownEvent: the context has no such message.
        """
        if name not in self._newest:
            raise self.unknown(name)
        return self._newest[name]

    def unknown(self, name: str) -> UnknownEvent:
        return UnknownEvent(f"{name} is not an event of {self._packages}")

    def list_versions(self, newest: type[Message]) -> list[str]:
        """Return the full names of all versions that are read as this newest version, itself included."""
        return [name for name, message in self._newest.items() if message is newest]

    def is_newest(self, message: type[Message]) -> bool:
        return self._newest.get(message.DESCRIPTOR.full_name) is message

    def find_newest(self, short_name: str) -> type[Message] | None:
        """Return the newest version of the message with this name, which is without its package."""
        return self._newest_by_short_name.get(short_name)

    def check_newest(self, *messages: type[Message]) -> None:
        """Check that these are newest versions, because older ones are never the result of `decode`.

        Raises:
            ValueError: a message is an older version, or not the context's.
        """
        for message in messages:
            name = message.DESCRIPTOR.full_name
            if name not in self._newest:
                raise ValueError(str(self.unknown(name)))
            if (newest := self._newest[name]) is not message:
                raise ValueError(f"{name} is read as its newest version, {newest.DESCRIPTOR.full_name}")

    def get_parser(self, name: str) -> Parser:
        """Return a function from the bytes of a message, in any version, to the message's newest version.

        Args:
            name: the full name of the bytes' version.

        Raises:
            UnknownEvent: the context has no such message.
        """
        self.newest(name)
        return self._parsers[name]

    def decode(self, event: EncodedEvent) -> Message:
        """Return the newest version of an event's message; also of `contracts.forgetting.FORGOTTEN`.

        Raises:
            UnknownEvent: the event's type is not the context's.
            google.protobuf.message.DecodeError: the data does not parse as the event's type.
            contracts.personal_data.Sealed: the event was not opened, or no key of its sealed data is known.
        """
        parse = self._parsers.get(event.type) or self.get_parser(event.type)
        return parse(event.data)


def _list_messages(modules: Sequence[ModuleType]) -> list[type[Message]]:
    """Return the messages of the modules, those of the oldest module first."""
    return [getattr(module, name) for module in modules for name in module.DESCRIPTOR.message_types_by_name]


def _check_upcasters(messages: Sequence[type[Message]], upcasters: Sequence[Upcaster]) -> None:
    """Raise TypeError unless each upcaster leads to a message of the same or a newer version."""
    packages = list(dict.fromkeys(message.DESCRIPTOR.file.package for message in messages))
    for upcaster in upcasters:
        for message in (upcaster.source, upcaster.target):
            if message not in messages:
                raise TypeError(f"{message.DESCRIPTOR.full_name} has an upcaster, but is not in the modules")
        source, target = upcaster.source.DESCRIPTOR, upcaster.target.DESCRIPTOR
        if packages.index(target.file.package) < packages.index(source.file.package):
            raise TypeError(f"an upcaster leads from {source.full_name} to an older {target.full_name}")


def _check_names(newest: Sequence[type[Message]]) -> dict[str, type[Message]]:
    """Return the newest messages by their short names; raise TypeError if two have the same."""
    by_name: dict[str, type[Message]] = {}
    for message in newest:
        other = by_name.setdefault(message.DESCRIPTOR.name, message)
        if other is not message:
            names = f"{other.DESCRIPTOR.full_name} to {message.DESCRIPTOR.full_name}"
            raise TypeError(f"no upcaster leads from {names}")
    return by_name


def _build_parser(message: type[Message], convert: Conversion | None) -> Parser:
    parse: Parser = message.FromString
    if may_be_sealed(message.DESCRIPTOR.full_name):
        parse = _parse_opened(parse)
    return parse if convert is None else lambda data: convert(parse(data))


def _parse_opened(parse: Parser) -> Parser:
    def parse_and_check(data: bytes) -> Message:
        message = parse(data)
        check_open(message)
        return message

    return parse_and_check
