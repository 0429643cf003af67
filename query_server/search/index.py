"""An index of documents on this machine: the library tantivy behind the few operations that are needed.

How it works. Everything here blocks, and releases Python's lock meanwhile: `IndexFollower` calls what
writes in one thread, and searches run in others. Searches work on the last commit.

The library's own relevance (BM25) depends on statistics that include deleted documents until segments are
merged, so two servers with the same views would rank them differently. A score is therefore a function of
the search and the document alone: queries give each match a constant score. Scores are multiples of 1/4 up
to MAX_SCORE, which sums of 32-bit numbers keep exact. The weight of a document raises its score by less
than such a step, so it decides only between equal ones; what is equal even then is sorted by a hash of the
id. Texts that are sorted by end with that hash.
"""

from collections.abc import Iterable, Sequence, Set
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

import msgspec
import tantivy
from tantivy import DocAddress, FieldType, Index, Occur, Order, Query, SchemaBuilder, Searcher

from contracts.search_digests import SearchDigest, hash_check
from query_server.search.definition import Document, IndexDefinition
from query_server.search.folder import IndexFolder, SavedState
from query_server.search.shown_documents import shorten
from query_server.search.text import TOKENIZERS
from query_server.search.text import VERSION as TEXT_VERSION
from runtime.process import logs

MAX_SCORE = 128.0
STEP = 0.25
"""The least difference between two scores."""
MAX_WEIGHT = 0.002
"""log2(2 + 0.002) is 1.0014: the largest weight raises MAX_SCORE by 0.19."""
RANKS = 8
"""Different ranks of documents. Within a rank the hash decides, as far as 32 bits of the score tell."""
MAX_RESULTS = 1_000
"""Documents of one search that are listed."""
MARGIN = 8
"""Documents that are read beyond those needed, since equal scores may span the end."""
HEAP_SIZE = 30_000_000
"""Bytes of documents that the library collects before it writes them."""
TIE_DIGITS = 16
MAX_RANGES = 20
"""Ranges of numbers in a filter; more of them take longer than the values themselves."""

LIBRARY_VERSION = version("tantivy")

log = logs.get_logger(__name__)


def hash_id(view_id: str) -> int:
    """Return a number of 62 bits that stands for an id in the index, the same on all servers."""
    return int.from_bytes(blake2b(view_id.encode(), digest_size=8).digest()) >> 2


def make_sort_key(number: int, digits: int, view_id: str) -> str:
    """Return the text by which documents are sorted by a number, and then by the hash of their ids."""
    return f"{number:0{digits}d}{hash_id(view_id):0{TIE_DIGITS}x}"


class Change(msgspec.Struct, frozen=True, gc=False):
    """A view that was read."""

    view_id: str
    data: bytes | None
    """None if it does not exist."""
    version: int
    flag: bool
    now: float
    """The time at which it was read, in seconds since 1970."""


class Sorting(msgspec.Struct, frozen=True):
    """The order of what is found: by a text field, or by score if there is none."""

    field: str = ""
    ascending: bool = False


class Found(msgspec.Struct, frozen=True):
    """Documents in the requested order."""

    hashes: Sequence[int]
    total: int
    """All that match."""
    has_more: bool
    addresses: Sequence[DocAddress] | None
    """Of all that match, if they are few."""


class SearchIndex:
    """An index in a folder.

    Args:
        definition: of the documents.
        folder: locked by this process.
    """

    def __init__(self, definition: IndexDefinition, folder: IndexFolder) -> None:
        self.definition = definition
        self.folder = folder
        self.version = f"{definition.version} / {TEXT_VERSION} / {LIBRARY_VERSION}"
        self._failures = logs.LimitedErrors(log, "Document of a view not made", index=definition.name)
        self.ids: dict[int, str] = {}
        """The ids of the documents by their hashes."""
        builder = SchemaBuilder()
        builder.add_text_field("id", tokenizer_name="raw", index_option="basic")
        builder.add_integer_field("hash", fast=True)
        builder.add_integer_field("check", fast=True)
        builder.add_float_field("weight", fast=True)
        if definition.numbering:
            builder.add_integer_field("number", indexed=True, fast=True)
        self._numbers: dict[str, int] = {}
        """Of the values of the field that is numbered."""
        definition.add_fields(builder)
        self.schema = builder.build()

    def open(self) -> SavedState | None:
        """Open the saved index and return its state; if there is none, begin one and return None."""
        state = self.folder.read_state(self.version)
        try:
            if state is not None:
                self._open()
                self._read_numbers()
                self.ids = {hash_id(view_id): view_id for view_id in state.documents}
                return state
        except (OSError, ValueError):  # it is damaged
            pass
        self.begin()
        return None

    def begin(self) -> None:
        """Begin an empty index."""
        self.ids.clear()
        self.folder.clear()
        self._open()

    def _open(self) -> None:
        self._index = Index(self.schema, path=str(self.folder.path))
        for name, analyzer in TOKENIZERS.items():
            self._index.register_tokenizer(name, analyzer)
        self._index.config_reader("manual")
        self._writer = self._index.writer(HEAP_SIZE, 1)
        self._index.reload()

    def _read_numbers(self) -> None:
        """Read the numbers from the documents, which may be newer than the saved state."""
        if self.definition.numbering is None:
            return
        field, searcher = self.definition.numbering.field, self.searcher
        for value, _ in searcher.terms_with_prefix(field, "", Query.all_query()):
            hits = searcher.search(Query.term_query(self.schema, field, value, "basic"), 1).hits
            numbers: Any = searcher.fast_field_values("number", [address for _, address in hits])
            self._numbers.update((value, number) for number in numbers)

    def add_numbers(self, values: Iterable[str]) -> None:
        """Number values that have no number yet, in this order."""
        for value in values:
            if value not in self._numbers:
                self._numbers[value] = max(self._numbers.values(), default=-1) + 1

    def filter_numbered(self, values: Sequence[str]) -> Query:
        """Return the query for documents that have one of these values in the field that is numbered."""
        assert self.definition.numbering is not None  # noqa: S101 - a fault of the definition
        ranges = list[list[int]]()
        for number in sorted(self._numbers[value] for value in values if value in self._numbers):
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
        if len(ranges) > MAX_RANGES:
            return Query.term_set_query(self.schema, self.definition.numbering.field, values)
        clauses = [
            Query.range_query(self.schema, "number", FieldType.Integer, low, high) for low, high in ranges
        ]
        if len(clauses) == 1:
            return clauses[0]
        return Query.boolean_query([(Occur.Should, each) for each in clauses])

    def apply(self, changes: Sequence[Change]) -> list[Document | None]:
        """Replace the documents of these views; the next commit shows them. Return the new ones."""
        documents = [self._make(change) for change in changes]
        for change, document in zip(changes, documents, strict=True):
            self._writer.delete_documents_by_term("id", change.view_id)
            if document is None:
                self.ids.pop(hash_id(change.view_id), None)
            else:
                self._writer.add_document(self._build(change.view_id, document))
                self.ids[hash_id(change.view_id)] = change.view_id
        return documents

    def _make(self, change: Change) -> Document | None:
        try:
            make = self.definition.make_document
            return make(change.data, change.flag, change.now) if change.data else None
        except Exception as error:  # the others are to be found
            self._failures.report(view=change.view_id, error=repr(error))
            return None

    def _build(self, view_id: str, document: Document) -> tantivy.Document:
        fields = {
            **document.fields,
            "id": view_id,
            "hash": hash_id(view_id),
            "check": hash_check(document.check),
            "weight": (document.rank + hash_id(view_id) / 2**62 / RANKS) * MAX_WEIGHT,
        }
        numbering = self.definition.numbering
        if numbering and (value := document.fields.get(numbering.field)):
            self.add_numbers([value])
            fields["number"] = self._numbers[value]
        return tantivy.Document.from_dict(fields, self.schema)

    def commit(self) -> None:
        """Show all changes to searches that begin from now on."""
        self._writer.commit()
        self._index.reload()

    def close(self) -> None:
        """Wait for merges, and release the library's lock."""
        self._writer.wait_merging_threads()

    @property
    def searcher(self) -> Searcher:
        """The last commit."""
        return self._index.searcher()

    def find(self, searcher: Searcher, query: Query, sorting: Sorting, shown: Set[int], count: int) -> Found:
        """Return the first documents that were not shown.

        Args:
            searcher: the commit to search.
            query: its scores are multiples of STEP up to MAX_SCORE.
            sorting: the order.
            shown: the hashes, as `shown_documents.shorten` returns them, of those to leave out.
            count: the maximum number of documents; with those shown at most MAX_RESULTS.
        """
        wanted = min(len(shown) + count + 1, MAX_RESULTS + 1)
        if sorting.field:
            hashes, result = self._find_sorted(searcher, query, sorting, wanted)
        else:
            hashes, result = self._find_by_score(searcher, query, wanted)
        rest = [each for each in hashes[:MAX_RESULTS] if shorten(each) not in shown]
        are_all = len(result.hits) == result.count
        addresses = [address for _, address in result.hits] if are_all else None
        return Found(rest[:count], result.count, len(rest) > count, addresses)

    def _find_sorted(
        self, searcher: Searcher, query: Query, sorting: Sorting, wanted: int
    ) -> tuple[list[int], Any]:
        order = Order.Asc if sorting.ascending else Order.Desc
        result: Any = searcher.search(query, wanted, order_by_field=sorting.field, order=order)
        return [int(key[-TIE_DIGITS:], 16) for key, _ in result.hits if key], result

    def _find_by_score(self, searcher: Searcher, query: Query, wanted: int) -> tuple[list[int], Any]:
        limit = wanted + MARGIN
        while True:
            result: Any = searcher.search(query, limit, weight_by_field="weight")
            hits = result.hits
            # The library breaks ties as its segments happen to be; so all of a tie at the end are read.
            if len(hits) < limit or hits[wanted - 1][0] > hits[-1][0]:
                break
            limit *= 4
        hashes: Any = searcher.fast_field_values("hash", [address for _, address in hits])
        ranked = sorted((-score, each) for (score, _), each in zip(hits, hashes, strict=True))
        return [each for _, each in ranked[:wanted]], result

    def compute_digest(self) -> SearchDigest:
        """Read the digest of all documents."""
        result: Any = self.searcher.aggregate(
            Query.all_query(),
            {"count": {"value_count": {"field": "check"}}, "sum": {"sum": {"field": "check"}}},
        )
        return SearchDigest(int(result["count"]["value"]), int(result["sum"]["value"]))
