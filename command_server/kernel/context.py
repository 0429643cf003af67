"""The binding of a bounded context's domain classes to its protos.

How it works. Classes and messages are matched by name: request `PlaceOrderRequest` to command `PlaceOrder`,
message `OrderPlaced` to event `OrderPlaced`. Codecs are built once, at start-up, and any class, message or
field without a counterpart raises TypeError there. The domain knows only the newest version of a message:
older requests and events are upcast before they are decoded into the domain class. `CommandType` holds this
for the command of one RPC, `AggregateType` for the events and snapshots of one aggregate.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from types import ModuleType
from typing import Any

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from command_server.kernel.decider import Aggregate, Decider
from command_server.kernel.ports import StoredEvent
from command_server.kernel.signed_values import SIGNED_FIELD, SignedValues
from command_server.kernel.snapshot import SnapshotCodec
from command_server.kernel.unique_values import UNIQUE_FIELD, UniqueValues
from contracts.event_types import EventTypes
from contracts.forgetting import FORGOTTEN
from contracts.key_ring import Purpose
from contracts.personal_data import may_be_sealed
from contracts.signed_tokens import GetKeyRing
from contracts.streams import aggregate_id
from contracts.upcasters import Upcaster, chain_upcasters
from runtime import codec

REQUEST_FIELDS = ("request_id", "expected_version")
"""Fields that belong to the request and not to its command."""
CALLER_FIELD = "caller"
"""The command field for the caller's identity. It comes from the access token; requests do not have it."""
SCOPES_FIELD = "scopes"
"""The command field for the scopes of the caller's access token; requests do not have it."""
PERSONS_FIELD = "persons"
"""The command field for the caller's subject and the person for whom it acts; requests do not have it."""
REQUEST_ID_FIELD = "request_id"
"""The command field for the id of the request, unique for its caller."""
LOOKUP_FIELD = "earlier_events"
"""The command field for the result of the decider's lookup; requests do not have it."""

DEFAULTED_FIELDS = frozenset(
    (
        CALLER_FIELD,
        SCOPES_FIELD,
        PERSONS_FIELD,
        REQUEST_ID_FIELD,
        LOOKUP_FIELD,
        SIGNED_FIELD,
        UNIQUE_FIELD,
    )
)
"""The fields of commands that requests do not have."""


@dataclass(frozen=True)
class Context:
    """A bounded context: its CommandServices, events and deciders."""

    name: str
    commands: tuple[ModuleType, ...]
    """The modules generated from `command_service.proto`, one per version, oldest first."""
    events: EventTypes
    deciders: tuple[Decider, ...]
    request_upcasters: tuple[Upcaster, ...] = ()
    """For requests of older versions."""
    signed_values: SignedValues | None = None
    """The tokens of its commands, if they have any."""
    unique_values: UniqueValues | None = None
    """The unique values of its commands, if they have any."""

    @property
    def key_purposes(self) -> Sequence[Purpose]:
        """The purposes of the keys that its commands need."""
        signed = [self.signed_values.purpose] if self.signed_values else []
        return [*signed, Purpose.UNIQUE] if self.unique_values else signed

    @cached_property
    def services(self) -> tuple[ServiceDescriptor, ...]:
        """One CommandService per version, oldest first."""
        return tuple(module.DESCRIPTOR.services_by_name["CommandService"] for module in self.commands)


class CommandType:
    """The command of one RPC: its decoder and its decider."""

    def __init__(self, context: Context, method: MethodDescriptor, decider: Decider, command: type) -> None:
        request = method.input_type
        newest = _find_newest_request(context, request)
        self.context = context.name
        self.name = f"{request.file.package}.{command.__name__}"
        self.decider = decider
        self.request_fields = frozenset(REQUEST_FIELDS).intersection(request.fields_by_name)
        names = {field.name for field in fields(command)}
        defaulted = names & DEFAULTED_FIELDS
        if (LOOKUP_FIELD in defaulted) != (decider.lookup is not None):
            raise TypeError(f"{command.__name__}: {LOOKUP_FIELD} belongs to deciders with a lookup")
        self.signed_values = context.signed_values if SIGNED_FIELD in defaulted else None
        if SIGNED_FIELD in defaulted and self.signed_values is None:
            raise TypeError(f"{command.__name__}: {SIGNED_FIELD} belongs to contexts with signed values")
        self.unique_values = context.unique_values if UNIQUE_FIELD in defaulted else None
        if UNIQUE_FIELD in defaulted and self.unique_values is None:
            raise TypeError(f"{command.__name__}: {UNIQUE_FIELD} belongs to contexts with unique values")
        decode_newest = codec.decoder(newest, command, ignored=self.request_fields, defaulted=defaulted)
        self._decode = _upcast_first(context, request, newest, decode_newest)
        self._needs_caller = CALLER_FIELD in defaulted
        self._needs_scopes = SCOPES_FIELD in defaulted
        self._needs_persons = PERSONS_FIELD in defaulted
        self._needs_request_id = REQUEST_ID_FIELD in defaulted

    @property
    def needs_more(self) -> bool:
        """Whether a decision needs more than the states, the request and the name of its caller."""
        needs_keys = self.signed_values is not None or self.unique_values is not None
        return self._needs_scopes or needs_keys or self.decider.lookup is not None

    def build_completion(self, get_ring: GetKeyRing) -> Callable[[Any], Any]:
        """Return a function that gives a command what keys say about its fields.

        Args:
            get_ring: returns the current keys.
        """
        parts = [part for part in (self.signed_values, self.unique_values) if part is not None]
        steps = [part.build_completion(get_ring) for part in parts]

        def complete(command: Any) -> Any:
            for step in steps:
                command = step(command)
            return command

        return complete

    def decode(
        self,
        request: Any,
        caller: str,
        scopes: frozenset[str] = frozenset(),
        persons: frozenset[str] = frozenset(),
    ) -> Any:
        """Return the command of a request.

        Args:
            request: a message of the RPC's request type.
            caller: the subject of the caller's access token.
            scopes: the scopes of that token.
            persons: the subject, and the person for whom the caller acts; by default the subject alone.
        """
        command = self._decode(request)
        if self._needs_request_id:
            command = replace(command, request_id=request.request_id.lower())
        if self._needs_persons:
            command = replace(command, persons=persons or frozenset((caller,)))
        if self._needs_scopes:
            command = replace(command, scopes=scopes)
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
        self._owner = aggregate.owner
        if self._owner and not hasattr(aggregate.initial, self._owner):
            raise TypeError(f"{aggregate.stream_type}: its state has no attribute {self._owner}")
        self._events = context.events
        self._subjects = aggregate.subjects
        self.descriptors = context.events.descriptors
        """Of all events of its context, in all versions."""
        messages: dict[type, Any] = {event: _find_message(context, event) for event in aggregate.events}
        self.snapshots = SnapshotCodec(aggregate, _select_upcasters(context.events, messages.values()))
        if aggregate.subjects is None and any(
            may_be_sealed(m.DESCRIPTOR.full_name) for m in messages.values()
        ):
            raise TypeError(f"{aggregate.stream_type}: its events are about persons, so it needs `subjects`")
        self._names = {event: message.DESCRIPTOR.full_name for event, message in messages.items()}
        self._encoders = {
            event: codec.encoder(event, message.DESCRIPTOR) for event, message in messages.items()
        }
        self._decoders = {
            message: codec.decoder(message.DESCRIPTOR, event) for event, message in messages.items()
        }

    def encode(self, event: Any) -> tuple[str, bytes]:
        """Return the full name of an event's message, and its bytes in clear."""
        name, message = self.convert(event)
        return name, message.SerializeToString()

    def convert(self, event: Any) -> tuple[str, Any]:
        """Return the full name of an event's message, and the message."""
        kind = type(event)
        return self._names[kind], self._encoders[kind](event)

    def list_subjects(self, stream: str, state: Any) -> Sequence[str]:
        """Return the persons whose data a state holds."""
        if self._subjects is None:
            return ()
        return [subject for subject in self._subjects(state, aggregate_id(stream)) if subject]

    def list_versions(self, event: type) -> Sequence[str]:
        """Return the full names of an event's messages in all versions."""
        return self._events.list_versions(self._events.newest(self._names[event]))

    def decodes(self, event_type: str) -> bool:
        """Return whether messages of this full name are events of the aggregate, in any version."""
        return event_type in self._events and self._events.newest(event_type) in self._decoders

    def decode(self, event: StoredEvent) -> Any:
        """Return the domain event of a stored event of any version."""
        message = self._events.decode(event)
        return self._decoders[type(message)](message)

    def apply(self, state: Any, event: StoredEvent) -> Any:
        """Return the state after an event."""
        return state if event.type == FORGOTTEN else self.evolve(state, self.decode(event))

    def belongs_to(self, state: Any, owners: frozenset[str]) -> bool:
        """Return whether a state belongs to one of these persons."""
        return bool(self._owner) and getattr(state, self._owner) in owners

    def fold(self, state: Any, events: Sequence[StoredEvent]) -> Any:
        """Return the state after the events."""
        for event in events:
            state = self.apply(state, event)
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


def _find_message(context: Context, event: type) -> type[Message]:
    if message := context.events.find_newest(event.__name__):
        return message
    raise TypeError(f"{context.name}: no event message is named {event.__name__}")


def _select_upcasters(events: EventTypes, messages: Collection[Any]) -> list[Upcaster]:
    """Return the upcasters that lead to these newest versions."""
    return [each for each in events.upcasters if events.newest(each.source.DESCRIPTOR.full_name) in messages]


def _find_newest_request(context: Context, request: Descriptor) -> Descriptor:
    """Return the newest version of a request."""
    versions: list[Descriptor | None] = [
        module.DESCRIPTOR.message_types_by_name.get(request.name) for module in context.commands
    ]
    return [version for version in versions if version is not None][-1]


def _upcast_first(
    context: Context, request: Descriptor, newest: Descriptor, decode: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Return a function that upcasts requests of one version to the newest and decodes them.

    Raises:
        TypeError: the context's upcasters do not lead from `request` to `newest`.
    """
    message, convert = chain_upcasters(codec.message_class(request), context.request_upcasters)
    if message.DESCRIPTOR.full_name != newest.full_name:
        raise TypeError(f"no upcaster leads from {request.full_name} to {newest.full_name}")
    return decode if convert is None else lambda older: decode(convert(older))
