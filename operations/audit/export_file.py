"""Verifies a file of `diptych audit export` without any server."""

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from contracts.audit.checkpoint import Checkpoint
from contracts.audit.digests import EPOCH, digest_event, digest_fields
from contracts.audit.merkle import compute_root, hash_leaf
from operations.audit.findings import CHECKPOINTS, Report
from operations.audit.signatures import is_signed
from runtime.audit.records import encode_key

EVENTS = "events"


class ExportVerification:
    """Verifies the lines of a file, in order.

    Args:
        public_keys: those that sign checkpoints, by id.
        kept: checkpoints that were kept elsewhere, by number.
        report: takes the findings.
    """

    def __init__(
        self, public_keys: Mapping[str, bytes], kept: Mapping[int, Checkpoint], report: Report
    ) -> None:
        self._public_keys, self._kept, self._report = public_keys, kept, report
        self._leaves: dict[str, list[bytes]] = {}
        self._last: Checkpoint | None = None

    def run(self, lines: Iterable[bytes]) -> None:
        number = 0
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
                if "checkpoint" in value:
                    self._check(Checkpoint.parse(value["checkpoint"]))
                else:
                    self._add_row(number, value)
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                self._report.add("file", f"line {number}", "it is no row and no checkpoint")
        if any(self._leaves.values()):
            self._report.add("file", f"line {number}", "rows follow the last checkpoint: its end was cut off")
        if self._last is None:
            self._report.add("file", "the file", "it has no checkpoint")
        for kept in self._kept.values():
            if self._last is None or kept.number > self._last.number:
                self._report.add(CHECKPOINTS, f"checkpoint {kept.number}", "it is not in the file")

    def _add_row(self, number: int, value: Mapping[str, Any]) -> None:
        record, key, values = value["record"], value["key"], list(map(decode_value, value["values"]))
        if record != EVENTS:
            leaf = hash_leaf(digest_fields(f"{record} 1", (key, *values)))
        else:
            previous, stream, version, type_name, recorded_at, metadata, data, digest = values
            computed = digest_event(previous or b"", stream, version, type_name, recorded_at, metadata, data)
            if digest is not None and digest != computed:
                text = "its digest is not that of its content"
                self._report.add(record, f"{stream}@{version}", f"{text} (line {number})")
            leaf = hash_leaf(encode_key(key) + (computed if digest is None else digest))
            self._report.events += 1
            self._report.unchained += digest is None
        self._leaves.setdefault(record, []).append(leaf)
        self._report.sealed[record] += 1

    def _check(self, checkpoint: Checkpoint) -> None:
        self._report.checkpoints += 1
        for text in self._list_faults(checkpoint):
            self._report.add(CHECKPOINTS, f"checkpoint {checkpoint.number}", text)
        for segment in checkpoint.segments:
            leaves = self._leaves.pop(segment.record, [])
            if len(leaves) != segment.rows or compute_root(leaves) != segment.root:
                text = f"{len(leaves)} rows are not the {segment.rows} that were sealed"
                self._report.add(segment.record, f"rows up to {segment.until}", text, checkpoint.number)
        for record in [record for record, leaves in self._leaves.items() if leaves]:
            del self._leaves[record]
            self._report.add(
                record, "rows", "the checkpoint after them does not cover them", checkpoint.number
            )
        self._last = checkpoint

    def _list_faults(self, checkpoint: Checkpoint) -> Iterator[str]:
        if self._last is not None and self._last.number + 1 != checkpoint.number:
            yield f"it follows checkpoint {self._last.number}"
        elif self._last is not None and self._last.leaf != checkpoint.previous:
            yield "it does not follow the one before it"
        if not is_signed(checkpoint, self._public_keys):
            yield f"its signature is not valid ({checkpoint.key_id})"
        kept = self._kept.get(checkpoint.number)
        if kept is not None and kept.to_signed() != checkpoint.to_signed():
            yield "it is not the one that was kept"


def verify_file(
    path: Path, public_keys: Mapping[str, bytes], kept: Iterable[Checkpoint], max_findings: int
) -> Report:
    """Return what differs in a file from what was recorded."""
    report = Report(max_findings)
    with path.open("rb") as lines:
        by_number = {checkpoint.number: checkpoint for checkpoint in kept}
        ExportVerification(public_keys, by_number, report).run(lines)
    return report


def decode_value(value: Any) -> Any:
    """Return a value that digests cover.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, dict):
        ((name, content),) = value.items()
        if name == "bytes":
            return b64decode(content, validate=True)
        if name == "time":
            return EPOCH + timedelta(microseconds=content)
    elif value is None or isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError("not a value")
