"""The rows that the changes of units of work take, by the part of the statement that writes them. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from operator import itemgetter
from typing import Any

import msgspec

from process_manager.groups.instance import Instance
from process_manager.groups.unit_of_work import UnitOfWork
from process_manager.postgres import rows
from process_manager.postgres.due_work import NO_CHECKPOINT, Feed
from process_manager.postgres.stored_rows import ParkedStream

INSERTED_IN_ORDER = {
    "first_checkpoints": ("saga", "stream_type", "partition"),
    "begun": ("saga", "id"),
    "first_parked": ("saga", "stream"),
}
"""By part with rows that two managers may insert at once: their key. In one order, neither waits for a row of
the other while the other waits for one of its own."""

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def list_rows(units: Sequence[UnitOfWork]) -> Rows:
    """Return the rows of each part of the statement, with the number of their unit."""
    collected: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for number, unit in enumerate(units):
        changes = _Changes(unit, defaultdict(list))
        changes.add_all()
        for part, part_rows in changes.rows.items():
            collected[part] += [{**row, "unit": number} for row in part_rows]
    for part, key in INSERTED_IN_ORDER.items():
        if part in collected:
            collected[part].sort(key=itemgetter(*key))
    return collected


class _Changes:
    def __init__(self, unit: UnitOfWork, collected: dict[str, list[dict[str, Any]]]) -> None:
        self._unit = unit
        self.rows = collected

    def add_all(self) -> None:
        self._add_checkpoints()
        self._add_inputs()
        for instance in self._unit.instances.values():
            if instance.revision is not None:
                self._add("instances", {**rows.to_key(instance), "revision": instance.revision})
        for instance in self._unit.saved.values():
            self._add_instance(instance)
        self._add_parked()

    def _add(self, part: str, *part_rows: dict[str, Any]) -> None:
        self.rows[part] += part_rows

    def _add_checkpoints(self) -> None:
        for feed, (old, new) in self._unit.advances.items():
            advanced = {**asdict(feed), "epoch": new[0], "sequence": new[1]}
            if old == NO_CHECKPOINT:
                self._add("first_checkpoints", advanced)
            else:
                self._add("checkpoints", {**asdict(feed), "epoch": old[0], "sequence": old[1]})
                self._add("advanced", advanced)

    def _add_inputs(self) -> None:
        for step, outcome in self._unit.outcomes:
            key = {"saga": step.saga, "id": step.id, "step": step.step, "attempt": step.attempt}
            self._add("outcomes", key)
            self._add("answered", {**key, "outcome": outcome, "at": self._unit.now})
        self._add("fired", *({**asdict(timer)} for timer in self._unit.fired))
        for instance, action in self._unit.actions:
            self._add("actions", {**rows.to_key(instance), **asdict(action), "at": self._unit.now})

    def _add_instance(self, instance: Instance) -> None:
        now = self._unit.now
        if instance.unreadable:
            self._add("unreadable", rows.to_unreadable_row(instance))
        else:
            part = "begun" if instance.revision is None else "updated"
            self._add(part, rows.to_row(instance, now))
            self._add("steps", *rows.to_step_rows(instance, now))
        if instance.key in self._unit.hurried:
            without = [
                f"{s.step}/{s.attempt}" for s, _ in self._unit.outcomes if (s.saga, s.id) == instance.key
            ]
            self._add("hurried_steps", {**rows.to_key(instance), "without": _to_json(without), "at": now})
            self._add("pending_steps", rows.to_key(instance))
        self._add_timers(instance)

    def _add_timers(self, instance: Instance) -> None:
        stops, resumes = self._unit.stops(instance), self._unit.resumes(instance)
        hurries, now = instance.key in self._unit.hurried, self._unit.now
        self._add("set_timers", *rows.to_timer_rows(instance, now if stops else None))
        cancelled = [name for name, at in instance.timers.items() if at is None]
        self._add("cancelled_timers", *({**rows.to_key(instance), "name": name} for name in cancelled))
        changes_others = stops or resumes or hurries
        if instance.revision is not None and (instance.timers or changes_others):
            self._add("timers", rows.to_key(instance))
        if changes_others:
            flags = {"stops": stops, "resumes": resumes, "hurries": hurries, "at": now}
            without = _to_json(list(instance.timers))
            self._add("other_timers", {**rows.to_key(instance), "without": without, **flags})

    def _add_parked(self) -> None:
        for (saga, stream), parked in self._unit.parked.items():
            stored = self._unit.rows.parked.get((saga, stream))
            key = {"saga": saga, "stream": stream}
            if stored is not None:
                self._add("parked", {**key, "revision": stored.revision})
                if parked is None:
                    self._add("unparked", key)
            elif self._unit.rows.are_kept:
                self._add("not_parked", key)
            if parked is not None and parked.changed:
                part = "first_parked" if stored is None else "parked_on"
                self._add(part, _to_parked_row(parked, self._unit))


def _to_parked_row(parked: ParkedStream, unit: UnitOfWork) -> dict[str, Any]:
    return {
        **_to_feed_key(parked.feed, parked.stream),
        "version": parked.version,
        "latest": parked.latest,
        "error": parked.error,
        "since": unit.now,
    }


def _to_feed_key(feed: Feed, stream: str) -> dict[str, Any]:
    return {**asdict(feed), "stream": stream}


def _to_json(names: Sequence[str]) -> str:
    return msgspec.json.encode(names).decode()
