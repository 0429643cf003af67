"""The binding of a bounded context's domain classes to its protos.

How it works. Classes and messages are matched by name: request `PlaceOrderRequest` to command `PlaceOrder`,
message `OrderPlaced` to event `OrderPlaced`. Codecs are built once, at start-up, and any class, message or
field without a counterpart raises TypeError there. The domain knows only the newest version of a message.
Older requests and events are decoded by their own message class, upcast one version at a time, and decoded
into the domain class from the newest version. `CommandType` holds this for the command of one RPC,
`AggregateType` for the events and snapshots of one aggregate.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

from command_server.kernel.decider import Aggregate, Decider
from command_server.kernel.ports import StoredEvent
from command_server.kernel.snapshot import SnapshotCodec
from contracts.upcasters import Upcaster, find_versions, upcast_to
from runtime import codec

REQUEST_FIELDS = ("request_id", "expected_version")
"""Fields that belong to the request and not to its command."""
CALLER_FIELD = "caller"
"""The command field for the caller's identity. It comes from the access token; requests do not have it."""


@dataclass(frozen=True)
class Context:
    """A bounded context: its CommandServices, events and deciders."""

    name: str
    commands: tuple[ModuleType, ...]
    """The modules generated from `command_service.proto`, one per version, oldest first."""
    events: tuple[ModuleType, ...]
    """The modules generated from `events.proto`, one per version, oldest first."""
    deciders: tuple[Decider, ...]
    upcasters: tuple[Upcaster, ...] = ()
    """For requests and events of older versions."""

    @cached_property
    def services(self) -> tuple[ServiceDescriptor, ...]:
        """One CommandService per version, oldest first."""
        return tuple(module.DESCRIPTOR.services_by_name["CommandService"] for module in self.commands)


class CommandType:
    """The command of one RPC: its decoder and its decider."""

    def __init__(self, context: Context, method: MethodDescriptor, decider: Decider, command: type) -> None:
        request = method.input_type
        *_, newest = find_versions(context.commands, request.name)
        self.context = context.name
        self.name = f"{request.file.package}.{command.__name__}"
        self.decider = decider
        self.request_fields = frozenset(REQUEST_FIELDS).intersection(request.fields_by_name)
        needs_caller = {CALLER_FIELD}.intersection(field.name for field in fields(command))
        decode_newest = codec.decoder(newest, command, ignored=self.request_fields, defaulted=needs_caller)
        self._decode = upcast_to(newest, request, context.upcasters, decode_newest)
        self._needs_caller = bool(needs_caller)

    def decode(self, request: Any, caller: str) -> Any:
        """Return the command of a request.

        Args:
            request: a message of the RPC's request type.
            caller: the subject of the caller's access token.
        """
        command = self._decode(request)
        return replace(command, caller=caller) if self._needs_caller else command


def command_types(context: Context) -> dict[str, CommandType]:
    """Return the command type of every RPC of a context, by the method's full name.

    Raises:
        TypeError: a method has no command class, a class has no method, or their fields differ.
    """
    deciders = {command.__name__: (d, command) for d in context.deciders for command in d.commands}
    methods = [method for service in context.services for method in service.methods]
    if unmatched_names := {method.name for method in methods}.symmetric_difference(deciders):
        names = ", ".join(sorted(unmatched_names))
        raise TypeError(f"{context.name}: in only one of CommandServices and deciders: {names}")
    return {method.full_name: CommandType(context, method, *deciders[method.name]) for method in methods}


class AggregateType:
    """The codecs of one aggregate's events and snapshots."""

    def __init__(self, aggregate: Aggregate, context: Context) -> None:
        self.stream_type = aggregate.stream_type
        self.initial = aggregate.initial
        self.evolve = aggregate.evolve
        self.snapshots = SnapshotCodec(aggregate, context.upcasters)
        versions = {event: _find_messages(context, event) for event in aggregate.events}
        self._names = {event: newest.full_name for event, (*_, newest) in versions.items()}
        self._encoders = {event: codec.encoder(event, newest) for event, (*_, newest) in versions.items()}
        self._decoders = {
            message.full_name: (
                codec.message_class(message).FromString,
                upcast_to(newest, message, context.upcasters, codec.decoder(newest, event)),
            )
            for event, (*older_versions, newest) in versions.items()
            for message in (*older_versions, newest)
        }

    def encode(self, event: Any) -> tuple[str, bytes]:
        """Return the full name of an event's message, and its bytes."""
        kind = type(event)
        return self._names[kind], self._encoders[kind](event).SerializeToString()

    def decodes(self, event_type: str) -> bool:
        """Return whether messages of this full name are events of the aggregate, in any version."""
        return event_type in self._decoders

    def decode(self, event: StoredEvent) -> Any:
        """Return the domain event of a stored event of any version."""
        parse, decode = self._decoders[event.type]
        return decode(parse(event.data))

    def fold(self, state: Any, events: Sequence[StoredEvent]) -> Any:
        """Return the state after the events."""
        for event in events:
            state = self.evolve(state, self.decode(event))
        return state


def aggregate_types(contexts: Sequence[Context]) -> dict[str, AggregateType]:
    """Return the aggregates of the contexts by stream type.

    Raises:
        TypeError: an event class has no message, or their fields differ.
    """
    return {
        aggregate.stream_type: AggregateType(aggregate, context)
        for context in contexts
        for decider in context.deciders
        for aggregate in decider.aggregates
    }


def _find_messages(context: Context, event: type) -> list[Descriptor]:
    if versions := find_versions(context.events, event.__name__):
        return versions
    raise TypeError(f"{context.name}: no event message is named {event.__name__}")
