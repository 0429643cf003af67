"""The terms by which instances of sagas are found: ids that their first events name. Pure.

How it works. A saga with streams of its own begins an instance with the first event of such a stream; a saga
without any finds its instances by the keys of its subscriptions, so all of those events count. A term is the
value of a string field whose name ends in `id` or `sku`, at any depth of the event. The fields are looked up
in the descriptors once for each type of event, because the index reads many events.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from contracts import streams
from contracts.envelope import RecordedEvent
from process_manager.saga import Saga
from process_manager.subscriptions import Subscription

MAX_DEPTH = 6
"""Messages within messages that are searched for fields."""
MAX_TERMS = 500
"""Terms of one event; a request of a caller could have any number."""

_NAME = re.compile(r"(^|_)(id|sku)$")
_Read = Callable[[Any], Iterable[str]]

InstanceKey = tuple[str, str]
"""The saga's name and the instance's id."""


@dataclass(frozen=True, slots=True)
class FirstEvents:
    """The events with which the instances of one saga begin."""

    saga: str
    subscription: Subscription
    is_own: bool
    """Whether these are the first events of streams whose ids are the instances' ids."""


class SagaTerms:
    """Finds the instances that begin with events, and their terms.

    Args:
        sagas: the definitions.
    """

    def __init__(self, sagas: Iterable[Saga[Any]]) -> None:
        self._first_events = [each for saga in sagas for each in _list_first_events(saga)]

    @property
    def own_types(self) -> Sequence[str]:
        """The types of streams whose first events begin instances."""
        return sorted({each.subscription.stream_type for each in self._first_events if each.is_own})

    @property
    def keyed_types(self) -> Sequence[str]:
        """The types of streams of which any event may begin an instance."""
        return sorted({each.subscription.stream_type for each in self._first_events if not each.is_own})

    def list_terms(self, event: RecordedEvent) -> Collection[str]:
        """Return the terms of an event; none if it begins no instance or cannot be decoded."""
        for each in self._select(event):
            try:
                return _list_terms(each.subscription.events.decode(event))
            except Exception:  # an event that nothing can decode names nothing
                return ()
        return ()

    def find_instances(self, event: RecordedEvent, term: str) -> list[InstanceKey]:
        """Return the instances that begin with an event, if it has a term."""
        if term not in self.list_terms(event):
            return []
        found = ((each.saga, _find_id(each, event)) for each in self._select(event))
        return [(saga, id_) for saga, id_ in found if id_]

    def _select(self, event: RecordedEvent) -> Iterator[FirstEvents]:
        type_ = streams.stream_type(event.stream)
        for each in self._first_events:
            if each.subscription.stream_type == type_ and (not each.is_own or event.version == 1):
                yield each


def _list_first_events(saga: Saga[Any]) -> Iterator[FirstEvents]:
    for subscription in saga.subscribes_to:
        is_own = subscription.key is None
        if is_own or not saga.own_type:
            yield FirstEvents(saga.name, subscription, is_own)


def _find_id(first_events: FirstEvents, event: RecordedEvent) -> str:
    try:
        return first_events.subscription.find_instance(event)
    except Exception:  # the saga itself is blocked by such an event
        return ""


def _list_terms(message: Message) -> Collection[str]:
    terms = dict[str, None]()
    for read in _list_readers(message.DESCRIPTOR, MAX_DEPTH):
        for value in read(message):
            if value:
                terms[value] = None
            if len(terms) == MAX_TERMS:
                return terms.keys()
    return terms.keys()


@cache
def _list_readers(descriptor: Descriptor, depth: int) -> Sequence[_Read]:
    """Return functions from a message to the values of its fields with terms."""
    readers = list[_Read]()
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_STRING and _NAME.search(field.name):
            readers.append(_read_field(field))
        elif nested := _list_nested(field, depth):
            readers.append(_read_nested(field, nested))
    return readers


def _list_nested(field: FieldDescriptor, depth: int) -> Sequence[_Read]:
    part = field.message_type
    if part is None or not depth or part.GetOptions().map_entry:
        return ()
    return _list_readers(part, depth - 1)


def _read_field(field: FieldDescriptor) -> _Read:
    name = field.name
    if field.is_repeated:
        return lambda message: getattr(message, name)
    return lambda message: (getattr(message, name),)


def _read_nested(field: FieldDescriptor, nested: Sequence[_Read]) -> _Read:
    name = field.name
    if field.is_repeated:
        return lambda message: [
            value for part in getattr(message, name) for read in nested for value in read(part)
        ]
    return lambda message: (
        [value for read in nested for value in read(getattr(message, name))] if message.HasField(name) else ()
    )
