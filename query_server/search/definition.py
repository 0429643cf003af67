"""The declaration of an index: what a document of it contains, and which views decide on that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tantivy import SchemaBuilder

from contracts.view_layout import View


@dataclass(frozen=True, slots=True)
class Document:
    """The content of one view in the index.

    Equal views, flags and times make equal documents: what a search finds, and in which order, depends on the
    documents alone, so all servers answer alike.
    """

    fields: Mapping[str, Any]
    """Values by the names of `IndexDefinition.add_fields`; lists for fields with several values."""
    rank: float
    """Which of several documents with the same score comes first: a multiple of 1/RANKS, below 1."""
    check: str
    """What `diptych verify` compares: the id, and what the document has of views and time."""
    next_change: float | None = None
    """Seconds since 1970 at which the same view makes another document; None if time changes nothing."""


@dataclass(frozen=True)
class FlagSource:
    """Views of another projection, each of which turns the flag of one document on or off.

    The flag of a document is on while one of its views has it on.
    """

    view: View
    read: Callable[[bytes], tuple[str, bool]]
    """Takes a serialised view; returns the id of the document, and whether the flag is on."""
    listing: str = "all"
    """The index in Redis that lists all these views."""


@dataclass(frozen=True)
class Numbering:
    """Numbers for the values of a field, so that a filter for many of them is a few ranges of numbers.

    A filter for 100 values takes 0.6 ms, and one for a range next to nothing.
    """

    field: str
    """Has one value, or none, in each document."""
    view: View
    view_id: str
    """The view that knows an order in which values that are filtered for together follow each other."""
    list_values: Callable[[bytes], Sequence[str]]
    """Takes that view, serialised; returns the values in the order."""


@dataclass(frozen=True)
class IndexDefinition:
    """An index of the views of one projection."""

    view: View
    version: str
    """Of the fields and their content; an index that was saved with another version is built again."""
    add_fields: Callable[[SchemaBuilder], object]
    make_document: Callable[[bytes, bool, float], Document | None]
    """Takes a serialised view, its flag and the time in seconds since 1970; None: it is not to be found."""
    flag: FlagSource | None = None
    numbering: Numbering | None = None
    listing: str = "all"
    """The index in Redis that lists all views."""

    @property
    def name(self) -> str:
        return self.view.projection
