"""What binds a bounded context's domain to its protos, by name, and finds at start-up what does not fit."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

from command_server.kernel.decider import Aggregate, Decider
from command_server.kernel.ports import StoredEvent
from command_server.kernel.snapshot import Snapshots
from runtime import codec

ENVELOPE = ("request_id", "expected_version")
"""Request fields that are about the request, not about the command."""


@dataclass(frozen=True)
class Context:
    """A bounded context: the CommandService and events that its protos define, and who decides.

    A request `PlaceOrderRequest` becomes the command class `PlaceOrder`, an event class `OrderPlaced` becomes
    the message of that name.
    """

    name: str
    commands: ModuleType
    """The module generated from `command_service.proto`."""
    events: ModuleType
    """The module generated from `events.proto`."""
    deciders: tuple[Decider, ...]

    @cached_property
    def service(self) -> ServiceDescriptor:
        """The context's CommandService."""
        return self.commands.DESCRIPTOR.services_by_name["CommandService"]  # type: ignore[no-any-return]


class CommandType:
    """One RPC's command: how its request is read, and who decides it."""

    def __init__(self, context: str, method: MethodDescriptor, decider: Decider, command: type) -> None:
        self.context = context
        self.name = f"{method.input_type.file.package}.{command.__name__}"
        self.decider = decider
        self.envelope = frozenset(ENVELOPE).intersection(method.input_type.fields_by_name)
        self.decode = codec.decoder(method.input_type, command, ignoring=self.envelope)


def command_types(context: Context) -> dict[str, CommandType]:
    """Return the command of each method of a context's service.

    Raises:
        TypeError: a method has no command class, a class no method, or the fields of the two differ.
    """
    deciders = {command.__name__: (d, command) for d in context.deciders for command in d.commands}
    methods = context.service.methods_by_name
    if different := set(methods).symmetric_difference(deciders):
        raise TypeError(
            f"{context.service.full_name} and its deciders differ in: {', '.join(sorted(different))}"
        )
    return {name: CommandType(context.name, method, *deciders[name]) for name, method in methods.items()}


class AggregateType:
    """One aggregate's events and states, to bytes and back."""

    def __init__(self, aggregate: Aggregate, events: ModuleType) -> None:
        self.stream_type = aggregate.stream_type
        self.initial = aggregate.initial
        self.evolve = aggregate.evolve
        self.snapshots = Snapshots(aggregate)
        messages = {event: _message(events, event) for event in aggregate.events}
        self._names = {event: message.full_name for event, message in messages.items()}
        self._encoders = {event: codec.encoder(event, message) for event, message in messages.items()}
        self._decoders = {
            message.full_name: (codec.message_class(message).FromString, codec.decoder(message, event))
            for event, message in messages.items()
        }

    def encode(self, event: Any) -> tuple[str, bytes]:
        """Return an event's message name and bytes."""
        kind = type(event)
        return self._names[kind], self._encoders[kind](event).SerializeToString()

    def fold(self, state: Any, events: Sequence[StoredEvent]) -> Any:
        """Return the state after stored events."""
        for event in events:
            parse, decode = self._decoders[event.type]
            state = self.evolve(state, decode(parse(event.data)))
        return state


def aggregate_types(contexts: tuple[Context, ...]) -> dict[str, AggregateType]:
    """Return all aggregates of these contexts by the type of their streams.

    Raises:
        TypeError: an event class and its message differ.
    """
    return {
        aggregate.stream_type: AggregateType(aggregate, context.events)
        for context in contexts
        for decider in context.deciders
        for aggregate in decider.aggregates
    }


def _message(events: ModuleType, event: type) -> Descriptor:
    message = events.DESCRIPTOR.message_types_by_name.get(event.__name__)
    if message is None:
        raise TypeError(f"{events.DESCRIPTOR.name} has no message {event.__name__}")
    return message  # type: ignore[no-any-return]
