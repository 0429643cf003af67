"""What binds a bounded context's domain to its protos, by name, and finds at start-up what does not fit."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

from command_server.kernel.decider import Aggregate, Decider
from command_server.kernel.ports import StoredEvent
from command_server.kernel.snapshot import Snapshots
from contracts.upcasters import Upcaster, find_versions, upcast_to
from runtime import codec

ENVELOPE = ("request_id", "expected_version")
"""Request fields that are about the request, not about the command."""
CALLER = "caller"
"""The field of a command class that says who asks; no request has it."""


@dataclass(frozen=True)
class Context:
    """A bounded context: the CommandServices and events that its protos define, and who decides.

    A request `PlaceOrderRequest` becomes the command class `PlaceOrder`, an event class `OrderPlaced` becomes
    the message of that name; where several versions have it, the newest one.
    """

    name: str
    commands: tuple[ModuleType, ...]
    """The modules generated from `command_service.proto` of every version, the oldest first."""
    events: tuple[ModuleType, ...]
    """Likewise those generated from `events.proto`."""
    deciders: tuple[Decider, ...]
    upcasters: tuple[Upcaster, ...] = ()
    """Of requests and events."""

    @cached_property
    def services(self) -> tuple[ServiceDescriptor, ...]:
        """The context's CommandServices."""
        return tuple(module.DESCRIPTOR.services_by_name["CommandService"] for module in self.commands)


class CommandType:
    """One RPC's command: how its request is read, and who decides it."""

    def __init__(self, context: Context, method: MethodDescriptor, decider: Decider, command: type) -> None:
        request = method.input_type
        *_, newest = find_versions(context.commands, request.name)
        self.context = context.name
        self.name = f"{request.file.package}.{command.__name__}"
        self.decider = decider
        self.envelope = frozenset(ENVELOPE).intersection(request.fields_by_name)
        needs_caller = {CALLER}.intersection(field.name for field in fields(command))
        of_newest = codec.decoder(newest, command, ignored=self.envelope, defaulted=needs_caller)
        self._decode = upcast_to(newest, request, context.upcasters, of_newest)
        self._needs_caller = bool(needs_caller)

    def decode(self, request: Any, caller: str) -> Any:
        """Return the command that a caller's request asks for."""
        command = self._decode(request)
        return replace(command, caller=caller) if self._needs_caller else command


def command_types(context: Context) -> dict[str, CommandType]:
    """Return the command of each method of a context's services, by the method's full name.

    Raises:
        TypeError: a method has no command class, a class no method, or the fields of the two differ.
    """
    deciders = {command.__name__: (d, command) for d in context.deciders for command in d.commands}
    methods = [method for service in context.services for method in service.methods]
    if different := {method.name for method in methods}.symmetric_difference(deciders):
        names = ", ".join(sorted(different))
        raise TypeError(f"the CommandServices of {context.name} and its deciders differ in: {names}")
    return {method.full_name: CommandType(context, method, *deciders[method.name]) for method in methods}


class AggregateType:
    """One aggregate's events and states, to bytes and back."""

    def __init__(self, aggregate: Aggregate, context: Context) -> None:
        self.stream_type = aggregate.stream_type
        self.initial = aggregate.initial
        self.evolve = aggregate.evolve
        self.snapshots = Snapshots(aggregate, context.upcasters)
        versions = {event: _messages(context, event) for event in aggregate.events}
        self._names = {event: newest.full_name for event, (*_, newest) in versions.items()}
        self._encoders = {event: codec.encoder(event, newest) for event, (*_, newest) in versions.items()}
        self._decoders = {
            message.full_name: (
                codec.message_class(message).FromString,
                upcast_to(newest, message, context.upcasters, codec.decoder(newest, event)),
            )
            for event, (*older, newest) in versions.items()
            for message in (*older, newest)
        }

    def encode(self, event: Any) -> tuple[str, bytes]:
        """Return an event's message name and bytes."""
        kind = type(event)
        return self._names[kind], self._encoders[kind](event).SerializeToString()

    def knows(self, event_type: str) -> bool:
        """Return whether messages of this full name are events of the aggregate, in whatever version."""
        return event_type in self._decoders

    def decode(self, event: StoredEvent) -> Any:
        """Return a stored event of any version as the domain knows it."""
        parse, decode = self._decoders[event.type]
        return decode(parse(event.data))

    def fold(self, state: Any, events: Sequence[StoredEvent]) -> Any:
        """Return the state after stored events."""
        for event in events:
            state = self.evolve(state, self.decode(event))
        return state


def aggregate_types(contexts: Sequence[Context]) -> dict[str, AggregateType]:
    """Return all aggregates of these contexts by the type of their streams.

    Raises:
        TypeError: an event class and its message differ.
    """
    return {
        aggregate.stream_type: AggregateType(aggregate, context)
        for context in contexts
        for decider in context.deciders
        for aggregate in decider.aggregates
    }


def _messages(context: Context, event: type) -> list[Descriptor]:
    if found := find_versions(context.events, event.__name__):
        return found
    raise TypeError(f"{context.name} has no message {event.__name__} among its events")
