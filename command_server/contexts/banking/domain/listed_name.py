"""The listed name aggregate: whether a name is on the list of those whose payments open cases.

Its id is a code of the name in its one form (`contracts/names.py`), so that no id reveals who is listed.
After a rotation of the keys a name has several ids, and is listed if it is under any of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from command_server.contexts.banking.domain.case_messages import (
    AddListedName,
    ListedNameAdded,
    ListedNameRemoved,
    RemoveListedName,
)
from command_server.contexts.banking.domain.messages import UniqueValues, list_name_texts
from command_server.kernel.decider import Aggregate, Decider, InvalidValue, Rejected, UniqueValue, members
from command_server.kernel.field_rules import check_fields

Command = AddListedName | RemoveListedName
Event = ListedNameAdded | ListedNameRemoved
EventsByStream = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class ListedName:
    """The state of a name."""

    is_listed: bool = False


def evolve(_: ListedName, event: Event) -> ListedName:
    return ListedName(isinstance(event, ListedNameAdded))


LISTED_NAME = Aggregate("banking.listed_name", ListedName(), evolve, members(Event))


def list_streams(name: str, unique_values: UniqueValues) -> Sequence[str]:
    """Return the streams of a name, the one for new entries first; none for an empty or invalid one."""
    values = (unique_values.get(text) for text in list_name_texts(name))
    return [LISTED_NAME.stream(id_) for each in values if isinstance(each, UniqueValue) for id_ in each.ids]


def check_name(field: str, name: str, unique_values: UniqueValues) -> None:
    """Raise Rejected if a name is neither empty nor has a form."""
    for text in list_name_texts(name):
        value = unique_values.get(text, InvalidValue("MALFORMED"))
        if isinstance(value, InvalidValue):
            raise Rejected("NAME_INVALID", field=field, cause=value.cause)


def is_listed(name: str, unique_values: UniqueValues, states: Mapping[str, Any]) -> bool:
    """Return whether a name is on the list."""
    return any(states[stream].is_listed for stream in list_streams(name, unique_values))


def decide(command: Command, states: Mapping[str, Any], now: datetime) -> EventsByStream:
    """Return the events that put a name on the list or take it off, by stream; none if it is so already."""
    check_fields(command)
    check_name("name", command.name, command.unique_values)
    names = streams(command)
    listed = [name for name in names if states[name].is_listed]
    reason, caller = command.reason, command.caller
    match command:
        case AddListedName(text):
            id_ = _read_id(names[0])
            added = ListedNameAdded(id_, text, reason, caller, added_at=now)
            return {} if listed else {names[0]: [added]}
        case RemoveListedName():
            return {
                name: [ListedNameRemoved(_read_id(name), reason, caller, removed_at=now)] for name in listed
            }


def streams(command: Command) -> Sequence[str]:
    """Return the streams of the command's name; one that no name has if it is invalid."""
    return list_streams(command.name, command.unique_values) or [LISTED_NAME.stream("-")]


def _read_id(stream: str) -> str:
    return stream.rpartition(".")[2]


DECIDER = Decider(members(Command), (LISTED_NAME,), "name", streams, decide)
