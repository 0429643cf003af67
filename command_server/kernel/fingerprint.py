"""Fingerprints of folds: a hash of the code and the values that folding an aggregate's events reaches.

How it works. The walk begins with `evolve`, the initial state and the upcasters. A function contributes its
syntax tree without docstrings and annotations, and leads to the global names, closure variables and defaults
that it uses, and to attributes of modules and classes. A class contributes its fields with their types and
defaults, its members if it is an enum, and its operators (`__add__`). Its methods and properties count only
if some function on the way uses an attribute of that name, and so do the fields of events. A rule in `decide`
or a property for it therefore does not count. Code of the standard library, and code that was not written in
Python, counts by name.

The result depends on the source alone: not on comments and layout, the process, or the order of sets. What
the walk cannot see, such as names that code computes or the contents of objects other than data, needs
`Aggregate.snapshot_version`.
"""

import dataclasses
import inspect
import re
import sys
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from hashlib import sha256
from typing import Any, get_args, get_origin, get_type_hints
from uuid import UUID
from zoneinfo import ZoneInfo

from command_server.kernel import function_source

FORMAT = "2"
"""Changes with the meaning of what is hashed, and of code that all folds share."""

PLAIN_TYPES = (
    *(bool, int, float, complex, str, bytes, types.NoneType, types.EllipsisType, range, slice),
    *(date, datetime, time, timedelta, timezone, ZoneInfo, Decimal, Fraction, UUID),
)
"""Types whose `repr` is the value."""


def compute_fingerprint(
    evolve: Callable[..., Any],
    initial: Any,
    events: Collection[type] = (),
    upcasters: Sequence[Callable[..., Any]] = (),
) -> str:
    """Return sixteen hex digits that identify a fold.

    Args:
        evolve: folds an event into the state.
        initial: the state before the first event.
        events: the types of the events; of their fields only those count that are used.
        upcasters: convert events before they are folded.
    """
    walk = _Walk(events)
    roots = [walk.describe(root) for root in (evolve, initial, *upcasters)]
    return digest(FORMAT, *roots, *walk.list_parts())


def digest(*texts: str) -> str:
    """Return sixteen hex digits that identify these texts."""
    return sha256("\0".join(texts).encode()).hexdigest()[:16]


class _Walk:
    """The functions and classes that were reached, each described once."""

    def __init__(self, events: Collection[type]) -> None:
        self._events = {_name(event): event for event in events}
        self._parts: dict[str, str] = {}
        """Descriptions of functions and members of classes, by name."""
        self._classes: dict[str, type] = dict(self._events)
        self._attributes: set[str] = set()
        """Names of attributes that the functions use."""
        self._open: set[int] = set()
        """Ids of the values that are being described, which may contain themselves."""

    def list_parts(self) -> list[str]:
        """Return all descriptions in order of their names."""
        self._add_members()
        return [f"{name}={self._parts[name]}" for name in sorted(self._parts)]

    def _add_members(self) -> None:
        """Describe the used methods and properties of all classes, which may lead to further ones."""
        size = -1
        while size != len(self._parts) + len(self._attributes) + len(self._classes):
            size = len(self._parts) + len(self._attributes) + len(self._classes)
            for class_name, cls in list(self._classes.items()):
                if class_name in self._events:
                    self._parts[class_name] = ",".join(self._describe_fields(cls, self._attributes))
                for name, member in list(vars(cls).items()):
                    key = f"{class_name}:{name}"
                    if key not in self._parts and self._uses(name, member):
                        self._parts[key] = ""  # it may use itself
                        self._parts[key] = self.describe(member)

    def _uses(self, name: str, member: Any) -> bool:
        if isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):
            return False  # a slot
        if name in self._attributes:
            return True
        is_operator = name.startswith("__") and isinstance(member, types.FunctionType)
        return is_operator and _is_followed(member) and bool(function_source.find_source(member))

    def describe(self, value: Any) -> str:
        """Return a text that identifies a value, and follow what it reaches."""
        if isinstance(value, Enum):
            return f"{self.describe(type(value))}.{value.name}"
        if isinstance(value, PLAIN_TYPES):
            return f"{type(value).__name__}:{value!r}"
        if id(value) in self._open:
            return "(itself)"
        self._open.add(id(value))
        try:
            return self._describe_compound(value)
        finally:
            self._open.discard(id(value))

    def _describe_compound(self, value: Any) -> str:
        match value:
            case re.Pattern():
                return f"pattern:{value.pattern!r}:{value.flags}"
            case types.ModuleType():
                return f"module:{value.__name__}"
            case types.FunctionType():
                return self._describe_function(value)
            case types.MethodType():
                return f"{self.describe(value.__self__)}:{self.describe(value.__func__)}"
            case staticmethod() | classmethod():
                return self.describe(value.__func__)
            case property():
                return self._describe_all((value.fget, value.fset))
            case partial():
                return self._describe_all((value.func, value.args, value.keywords))
            case type() if not get_args(value):
                return self._describe_class(value)
            case Mapping():
                return self._describe_all(part for item in value.items() for part in item)
            case Set():
                return f"set({','.join(sorted(map(self.describe, value)))})"
            case Sequence() | types.SimpleNamespace():
                parts = vars(value).items() if isinstance(value, types.SimpleNamespace) else value
                return f"{self.describe(type(value))}({self._describe_all(parts)})"
        return self._describe_object(value)

    def _describe_all(self, values: Any) -> str:
        return ",".join([self.describe(value) for value in values])

    def _describe_object(self, value: Any) -> str:
        if (origin := get_origin(value)) is not None:  # a type such as tuple[Line, ...] or Money | None
            return f"{getattr(origin, '__qualname__', origin)}[{self._describe_all(get_args(value))}]"
        if wrapped := getattr(value, "__wrapped__", None):
            return f"{_name(type(value))}({self.describe(wrapped)})"
        if (names := _list_fields(type(value))) is not None:
            fields = [f"{name}={self.describe(getattr(value, name, None))}" for name in names]
            return f"{self.describe(type(value))}({','.join(fields)})"
        if hasattr(value, "DESCRIPTOR") and hasattr(value, "SerializeToString"):
            return f"{_name(type(value))}:{value.SerializeToString(deterministic=True).hex()}"
        if registry := getattr(value, "registry", None):  # functools.singledispatch
            return self.describe(registry)
        return self.describe(type(value)) if hasattr(value, "__dict__") else _name(value)

    # Classes

    def _describe_class(self, cls: type) -> str:
        name = _name(cls)
        if not _is_followed(cls) or name in self._classes:
            return name
        self._classes[name] = cls
        if issubclass(cls, Enum):
            members = [f"{key}={self.describe(each.value)}" for key, each in cls.__members__.items()]
            self._parts[name] = f"enum({','.join(members)})"
        else:
            self._parts[name] = ",".join(self._describe_fields(cls))
        for base in cls.__bases__:
            self._parts[name] += f";{self.describe(base)}"
        return name

    def _describe_fields(self, cls: type, names: Collection[str] | None = None) -> Iterator[str]:
        """Yield descriptions of fields.

        Args:
            cls: the class.
            names: of the fields; None for all.
        """
        try:
            hints = get_type_hints(cls)
        except (NameError, TypeError, AttributeError):  # imported for type checkers only, for instance
            hints = inspect.get_annotations(cls)
        defaults = {}
        if dataclasses.is_dataclass(cls):
            defaults = {each.name: (each.default, each.default_factory) for each in dataclasses.fields(cls)}
        for field in hints if names is None else sorted(hints.keys() & names):
            default = defaults.get(field, (vars(cls).get(field),))
            values = [self.describe(each) for each in default if each is not dataclasses.MISSING]
            yield f"{field}:{self.describe(hints[field])}={values}"

    # Functions

    def _describe_function(self, function: types.FunctionType) -> str:
        name = _name(function)
        if not _is_followed(function):
            return name
        if "<" in name:  # neither a lambda's name nor that of a nested function says which one it is
            return f"{name}({self._describe_code(function)})"
        if name not in self._parts:
            self._parts[name] = ""  # it may call itself
            self._parts[name] = self._describe_code(function)
        return name

    def _describe_code(self, function: types.FunctionType) -> str:
        scope = {**function.__globals__, **_read_closure(function)}
        texts = [self._describe_all((function.__defaults__, function.__kwdefaults__))]
        definitions = function_source.find_source(function)
        for node in definitions:
            matched = function_source.list_matched_fields(node, scope)
            self._attributes.update(function_source.list_attributes(node), *matched)
            texts += [function_source.dump(node), repr(matched)]
            for name, value in function_source.resolve_names(node, scope):
                texts.append(f"{name}={self.describe(value)}")
        if not definitions:  # compiled from a text that nobody kept: its bytecode is all there is
            names = _list_code_names(function.__code__)
            self._attributes.update(names)
            texts.append(_dump_code(function.__code__))
            texts += [self.describe(scope[name]) for name in names if name in scope]
        return ";".join(texts)


def _read_closure(function: types.FunctionType) -> dict[str, Any]:
    values = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            values[name] = cell.cell_contents
    return values


def _list_code_names(code: types.CodeType) -> list[str]:
    names = [*code.co_names, *code.co_freevars]
    for constant in code.co_consts:
        names += _list_code_names(constant) if isinstance(constant, types.CodeType) else []
    return names


def _dump_code(code: types.CodeType) -> str:
    constants = [_dump_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()}({','.join(constants)})"


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _is_followed(value: Any) -> bool:
    """Return whether a function or class is followed: it is not the standard library's, and no message."""
    package = (getattr(value, "__module__", None) or "builtins").partition(".")[0]
    return package not in sys.stdlib_module_names and not hasattr(value, "DESCRIPTOR")


def _list_fields(cls: type) -> Sequence[str] | None:
    if dataclasses.is_dataclass(cls):
        return [field.name for field in dataclasses.fields(cls)]
    names: Sequence[str] | None = getattr(cls, "__struct_fields__", None)  # msgspec
    return names
