"""The source of an aggregate with all that a fold can reach, and some things that it cannot."""

RULES = '''
"""Rules."""
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache, partial, singledispatch
import folding_helpers as helpers

FACTOR = 2  # what an event counts
LIMITS = {"low": (1, 2), "high": {3, 4, 5}}
UNUSED = 7

class Kind(Enum):
    SMALL = 1
    LARGE = 2

@dataclass(frozen=True)
class Line:
    sku: str
    count: int = 1

    @property
    def weight(self) -> int:
        return self.count * 10

    def describe(self) -> str:
        return f"{self.count} of {self.sku}"

    def __add__(self, other: "Line") -> "Line":
        return replace(self, count=self.count + other.count)

@dataclass(frozen=True)
class State:
    total: int = 0
    kind: Kind = Kind.SMALL
    lines: tuple[Line, ...] = ()
    note: str | None = None
    tags: frozenset[str] = field(default_factory=frozenset)

@dataclass(frozen=True)
class Added:
    sku: str
    amount: int
    comment: str = ""

    @property
    def doubled(self) -> int:
        return self.amount * 2

@dataclass(frozen=True)
class Closed:
    reason: str

Event = Added | Closed

def scale(amount: int, by: int = 3) -> int:
    """Return the scaled amount."""
    return shift(amount) * by

def shift(amount: int) -> int:
    return amount + 1

def unrelated(state: State) -> str:
    """Nobody folds with this."""
    return f"{state.total} {UNUSED}"

@lru_cache
def cached(amount: int) -> int:
    return amount + 100

add_ten = partial(lambda step, amount: amount + step, 10)

def counted(step):
    def wrap(function):
        def call(state, event):
            return function(state, event)
        call.step = step
        return call
    return wrap

HANDLERS = {"closed": lambda state: replace(state, kind=Kind.LARGE)}

@counted(1)
def evolve(state: State, event: Event) -> State:
    """Return the state after an event."""
    match event:
        case Added(sku, amount):
            line = Line(sku) + Line(sku, event.doubled)
            total = state.total + scale(amount) * FACTOR + helpers.round_up(amount)
            total += cached(1) + add_ten(line.weight)
            return replace(state, total=min(total, max(LIMITS["high"])), lines=(*state.lines, line))
        case _:
            return HANDLERS["closed"](state)

def decide(command: str, state: State) -> list:
    """Return events."""
    return [Closed(state.lines[0].describe())] if command == "close" else []
'''

HELPERS = """
STEP = 5

def round_up(amount):
    return -(-amount // STEP) * STEP

def other(amount):
    return amount
"""

KEEPING = {
    "a comment": ("FACTOR = 2  # what an event counts", "FACTOR = 2  # as in the contract\n\n"),
    "a docstring": ("Return the state after an event.", "Fold."),
    "a further docstring": ("    return amount + 1\n", '    """Shift."""\n    return amount + 1\n'),
    "a docstring of a helper": ('    """Return the scaled amount."""\n', ""),
    "an annotation": ("def shift(amount: int) -> int:", "def shift(amount) -> 'int':"),
    "decide": ('if command == "close" else []', 'if command == "end" else []'),
    "an unrelated function": ("state.total} {UNUSED}", "state.total} and {UNUSED}"),
    "an unrelated constant": ("UNUSED = 7", "UNUSED = 8"),
    "a new function": ("def unrelated(", "def brand_new():\n    return FACTOR\n\ndef unrelated("),
    "a method that only rules use": ("{self.count} of {self.sku}", "{self.count}x {self.sku}"),
    "a field that evolve does not use": ('comment: str = ""\n', 'comment: str = "-"\n    by: str = ""\n'),
    "a new event": ("Event = ", "@dataclass\nclass Moved:\n    to: str\n\nEvent = Moved | "),
    "layout": ("return shift(amount) * by", "return (\n        shift(amount) * by\n    )"),
}
"""Edits of RULES that do not change the fold."""

CHANGING = {
    "evolve": ("state.total + scale", "state.total - scale"),
    "a function that evolve calls": ("shift(amount) * by", "shift(amount) * by + 1"),
    "a function that this one calls": ("return amount + 1\n", "return amount + 2\n"),
    "a default of an argument": ("by: int = 3", "by: int = 4"),
    "a constant": ("FACTOR = 2", "FACTOR = 3"),
    "a value within a constant": ("{3, 4, 5}", "{3, 4, 6}"),
    "a new field of the state": ("    note: str", '    mood: str = ""\n    note: str'),
    "a field's default": ("total: int = 0", "total: int = 1"),
    "a field's type": ("note: str | None", "note: int | None"),
    "a nested field's default": ("    count: int = 1\n", "    count: int = 2\n"),
    "a nested field": ("    count: int = 1\n", "    count: int = 1\n    size: int = 0\n"),
    "an enum's value": ("LARGE = 2", "LARGE = 3"),
    "a default that an enum gives": ("kind: Kind = Kind.SMALL", "kind: Kind = Kind.LARGE"),
    "a property of the state": ("self.count * 10", "self.count * 11"),
    "an operator": ("count=self.count + other.count", "count=self.count - other.count"),
    "a property of an event": ("self.amount * 2", "self.amount * 3"),
    "the order of matched fields": ("    sku: str\n    amount: int\n", "    amount: int\n    sku: str\n"),
    "a cached function": ("amount + 100", "amount + 101"),
    "a lambda": ("amount + step, 10", "amount - step, 10"),
    "an argument of partial": ("amount + step, 10", "amount + step, 11"),
    "a function in a dict": ("kind=Kind.LARGE)}", "kind=Kind.SMALL)}"),
    "a decorator's argument": ("@counted(1)", "@counted(2)"),
    "a decorator": ("return function(state, event)", "return function(state, event) or state"),
}
"""Edits of RULES that change the fold."""
