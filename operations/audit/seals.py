"""Compares rows with the checkpoints that cover them, and checkpoints with each other.

How it works. Checkpoints are read in order of their numbers. Each has to follow the one before it, to have a
valid signature, and the root of the tree over all checkpoints so far, which is computed anew. The rows of its
segments are read once, beside it. If the root over them is not that of the segment, the marks of the sealed
rows name those that differ.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.audit.checkpoint import Checkpoint, Segment
from contracts.audit.merkle import complete_subtrees, compute_root, join_subtrees, list_subtrees
from operations.audit.database import Driver
from operations.audit.findings import CHECKPOINTS, Report
from operations.audit.signatures import is_signed
from runtime.audit.marks import SIZE, decode_marks
from runtime.audit.records import RECORDS, Record, Row
from runtime.audit.rows import RowReader

PAGE = 1_000
"""Checkpoints that are read at once."""
READ_CHECKPOINTS = """
SELECT number, entry, root, key_id, signature, subtrees FROM audit_checkpoints
WHERE number > $1 ORDER BY number LIMIT $2
"""
READ_LAST_KEYS = "SELECT record, max(until) FROM audit_segments GROUP BY record"
READ_REMOVALS = """
SELECT record, max(until) AS until, max(before) AS before, max(removed_at) AS at
FROM audit_removals GROUP BY record
"""
READ_REMOVED_ROWS = "SELECT record, key, leaf, recorded_at FROM audit_removed_rows"
REDUCED = 2
"""Segments after the removed ones of which rows may be removed; rows are nearly in order of time."""
READ_ROW_COUNT = "SELECT row_count FROM audit_segments WHERE record = $1 AND until = $2"
READ_MARKS = "SELECT keys, marks FROM audit_segments WHERE record = $1 AND until = $2"
LABELS = {"events": "stream || '@' || version", "audit": "caller || ' ' || request_id"}
"""SQL expressions for the names of rows; the others are named by their keys."""

Progress = Callable[[int], None]


@dataclass(slots=True)
class Tree:
    """The tree over the checkpoints so far."""

    size: int = 0
    leaf: bytes = b""
    """Of the last checkpoint."""
    _subtrees: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def add(self, leaf: bytes) -> list[bytes]:
        """Add a leaf; return the subtrees that it completes."""
        self.size, self.leaf = self.size + 1, leaf
        completed = complete_subtrees(leaf, self.size, self._subtrees.__getitem__)
        known = self._subtrees | {(level, self.size): root for level, root in enumerate(completed)}
        self._subtrees = {each: known[each] for each in list_subtrees(0, self.size)}
        return completed

    def compute_root(self) -> bytes:
        return join_subtrees(list(self._subtrees.values()))


class SealVerification:
    """Verifies all checkpoints, and the rows that they cover.

    Args:
        driver: a connection that may read everything.
        public_keys: those that sign checkpoints, by id.
        kept: checkpoints that were kept elsewhere, by number.
        report: takes the findings.
        observe: called with the number of rows of each segment.
    """

    def __init__(
        self,
        driver: Driver,
        public_keys: Mapping[str, bytes],
        kept: Mapping[int, Checkpoint],
        report: Report,
        observe: Progress = lambda _: None,
    ) -> None:
        self._driver, self._public_keys, self._kept = driver, public_keys, kept
        self._report, self._observe = report, observe
        self._tree = Tree()
        self._sealed = Counter[str]()
        """The last sealed key by record."""
        self._readers: dict[str, RowReader] = {}
        self._removed_until: dict[str, int] = {}
        self._removed_rows: dict[str, list[Row]] = {}
        self._reduced = Counter[str]()
        """Segments after the removed ones that were compared, by record."""

    async def run(self) -> None:
        for number, kept in self._kept.items():
            if not is_signed(kept, self._public_keys):
                self._add(number, "the kept checkpoint is not signed by a known key")
        last_keys = {row[0]: row[1] for row in await self._driver.fetch(READ_LAST_KEYS)}
        self._readers = {
            each.name: RowReader(self._driver, each, last_keys.get(each.name, 0)) for each in RECORDS
        }
        await self._read_removals()
        number = 0
        while page := await self._driver.fetch(READ_CHECKPOINTS, number, PAGE):
            for row in page:
                number = row["number"]
                await self._check(row)
        for record in filter(lambda each: each.is_static, RECORDS):
            await self._find_unnumbered(record)
        for kept_number in self._kept:
            if kept_number > self._tree.size:
                text = f"it is missing: the database ends with checkpoint {self._tree.size}"
                self._add(kept_number, text)
        self._report.checkpoints = self._tree.size

    async def _find_unnumbered(self, record: Record) -> None:
        """Name the rows without a number beyond the end of those that earlier releases recorded."""
        last = self._sealed[record.name]
        if await self._driver.fetchval(READ_ROW_COUNT, record.name, last) != 0:
            return  # their end is not sealed yet
        for row in await self._driver.fetch(record.select(), last, 2**55, self._report.max_findings + 1):
            name = await self._name(record, row["key"])
            self._report.add(record.name, name, "it was inserted: each row has a number since it is sealed")

    async def _read_removals(self) -> None:
        """Read what housekeeping says that it has removed."""
        for row in await self._driver.fetch(READ_REMOVALS):
            self._removed_until[row["record"]] = row["until"]
            self._report.notes.append(
                f"{row['record']}: rows from before {row['before']:%Y-%m-%d %H:%M}Z are not verified:"
                f" housekeeping says that it removed them at {row['at']:%Y-%m-%d %H:%M}Z"
            )
        for row in await self._driver.fetch(READ_REMOVED_ROWS):
            self._removed_rows.setdefault(row["record"], []).append(Row(*row[1:]))

    async def _check(self, row: Mapping[str, Any]) -> None:
        number = self._tree.size + 1
        if row["number"] != number:
            self._add(number, "it is missing")
            # The rows of the ones that follow can be compared nevertheless.
        try:
            tail = f"root {row['root'].hex()}\nkey {row['key_id']}\nsignature AA==\n"
            checkpoint = Checkpoint.parse(row["entry"] + tail)
        except ValueError:
            self._add(row["number"], "it is no checkpoint")
            self._tree.add(b"")
            return
        previous, completed = self._tree.leaf, self._tree.add(checkpoint.leaf)
        signed = Checkpoint(
            checkpoint.number,
            checkpoint.time,
            checkpoint.incarnation,
            checkpoint.previous,
            checkpoint.segments,
            row["root"],
            row["key_id"],
            row["signature"],
        )
        for text in self._list_faults(signed, row, previous, completed):
            self._add(row["number"], text)
        for segment in checkpoint.segments:
            await self._check_segment(checkpoint.number, segment)

    def _list_faults(
        self, checkpoint: Checkpoint, row: Mapping[str, Any], previous: bytes, completed: Sequence[bytes]
    ) -> list[str]:
        faults = []
        if checkpoint.number != row["number"]:
            faults.append(f"its text has the number {checkpoint.number}")
        if checkpoint.previous != previous:
            faults.append("it does not follow the one before it")
        if checkpoint.root != self._tree.compute_root():
            faults.append("it does not cover the ones before it as they are now")
        elif list(row["subtrees"]) != completed:
            faults.append("its subtrees are not those of the checkpoints: proofs of events would be wrong")
        if not is_signed(checkpoint, self._public_keys):
            known = (
                "is not valid"
                if checkpoint.key_id in self._public_keys
                else "is of an unknown or revoked key"
            )
            faults.append(f"its signature {known} ({checkpoint.key_id})")
        kept = self._kept.get(row["number"])
        if kept is not None and kept.to_signed() != checkpoint.to_signed():
            faults.append(_describe_rewritten(kept, checkpoint))
        return faults

    async def _check_segment(self, number: int, segment: Segment) -> None:
        record = next((each for each in RECORDS if each.name == segment.record), None)
        if record is None:
            self._report.notes.append(
                f"checkpoint {number} covers {segment.record}, which this release lacks"
            )
            return
        if segment.after != self._sealed[record.name]:
            text = f"its {record.name} begin after {segment.after}, not after {self._sealed[record.name]}"
            self._add(number, text)
        self._sealed[record.name] = segment.until
        rows = await self._readers[record.name].take(segment.until)
        if record.name in self._removed_until:
            if segment.until <= self._removed_until[record.name]:
                return
            rows = self._add_removed(record.name, segment, rows)
        if rows:
            self._report.sealed[record.name] += len(rows)
        self._observe(len(rows))
        if len(rows) != segment.rows or compute_root([row.leaf for row in rows]) != segment.root:
            await self._name_differences(number, record, segment, rows)

    def _add_removed(self, record: str, segment: Segment, rows: list[Row]) -> list[Row]:
        """Return the rows of a segment with those that housekeeping has removed of it."""
        self._reduced[record] += 1
        if self._reduced[record] > REDUCED:
            return rows
        removed = self._removed_rows.get(record, ())
        rows += [row for row in removed if segment.after < row.key <= segment.until]
        return sorted(rows, key=lambda row: (row.key, row.leaf))

    async def _name_differences(
        self, number: int, record: Record, segment: Segment, rows: Sequence[Row]
    ) -> None:
        marked = await self._driver.fetchrow(READ_MARKS, record.name, segment.until)
        sealed = list(decode_marks(marked["keys"], marked["marks"])) if marked else []
        named = False
        for key, text in compare_marks(sealed, rows):
            named = True
            self._report.add(record.name, await self._name(record, key), text, number)
        if not named:
            subject = f"the {segment.rows} rows up to {segment.until}"
            text = "they are not those that were sealed, and their marks were changed to hide which"
            self._report.add(record.name, subject, text, number)

    async def _name(self, record: Record, key: int) -> str:
        """Return the name of a row for people."""
        plain = f"{'position' if record.name == 'events' else 'row'} {key}"
        label = LABELS.get(record.name.removesuffix("_unnumbered"))
        if label is None:
            return plain
        statement = f"SELECT {label} FROM {record.table} WHERE {record.key} = $1 LIMIT 1"  # noqa: S608
        name = await self._driver.fetchval(statement, key)
        return f"{name}, {plain}" if name else plain

    def _add(self, number: int, text: str) -> None:
        self._report.add(CHECKPOINTS, f"checkpoint {number}", text)


def compare_marks(sealed: Sequence[tuple[int, bytes]], rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Return the keys of rows that differ, and how."""
    before, after = Counter(sealed), Counter((row.key, row.leaf[:SIZE]) for row in rows)
    gone = Counter(key for key, _ in (before - after).elements())
    new = Counter(key for key, _ in (after - before).elements())
    changed = gone & new
    return sorted(
        [
            *((key, "it was changed after it was sealed") for key in changed.elements()),
            *((key, "it was deleted") for key in (gone - changed).elements()),
            *((key, "it was inserted after it was sealed") for key in (new - changed).elements()),
        ]
    )


def _describe_rewritten(kept: Checkpoint, now: Checkpoint) -> str:
    if kept.incarnation != now.incarnation:
        text = "the kept one is of another incarnation of the database"
        return f"{text} ({kept.incarnation}): it was restored, or is another one"
    if kept.to_entry() == now.to_entry():
        return "the past was rewritten: the kept one covers other checkpoints before it"
    return "the past was rewritten: it is not the one that was kept"
