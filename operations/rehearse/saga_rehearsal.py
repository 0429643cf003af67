"""The rehearsal of sagas: their inputs are replayed, and their steps, states and timers compared.

How it works. The inputs of an instance are put together from the record: the events of its streams up to
its positions, the answers to its steps from the recorded requests, and operators' actions. `Replay` then
looks for an order in which the installed code sends the recorded steps. If a part of an input is no longer
on record (an answer whose request was removed, or the response of a query), a difference proves nothing,
and is a note. So is an instance whose steps are archived. Its row is compared all the same: it has to be
readable, and the status that follows from its state has to be that of the row.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from google.protobuf import descriptor_pool

from contracts import streams
from contracts.envelope import RecordedEvent
from operations.rehearse.command_replay import CommandReplay
from operations.rehearse.installed_code import InstalledCode
from operations.rehearse.recorded import Record
from operations.rehearse.report import Difference, Report
from operations.rehearse.saga_records import (
    Answer,
    Key,
    RecordedSaga,
    RecordedStep,
    read_beginnings,
    read_deadlines,
    read_sagas,
)
from operations.rehearse.saga_replay import History, KnownInput, Replay, Start
from process_manager.groups.assignment import is_before
from process_manager.postgres.rows import find_error
from process_manager.saga import (
    AbortRequested,
    EventReceived,
    RetryRequested,
    Saga,
    StepRejected,
    StepSucceeded,
)
from runtime.codec import message_class
from runtime.process.logs.repeated_errors import describe_error


class SagaRehearsal:
    """Replays instances by the installed code and compares the results.

    Args:
        code: the installed code.
        record: the record.
    """

    def __init__(self, code: InstalledCode, record: Record) -> None:
        self._sagas = {saga.name: saga for saga in code.sagas}
        self._commands = CommandReplay(code, record)
        self._record = record
        self._beginnings: dict[str, datetime] | None = None

    async def rehearse(self, keys: Sequence[Key]) -> Report:
        """Compare instances."""
        report = Report()
        if self._beginnings is None:
            self._beginnings = await read_beginnings(self._record)
        own_types = {name: saga.own_type for name, saga in self._sagas.items()}
        sagas = await read_sagas(self._record, keys, own_types)
        for (name, _), recorded in sagas.items():
            _Comparison(self._sagas[name], recorded, self._beginnings.get(name), report).run()
        await self._commands.rehearse(sagas.values(), report)
        return report

    async def rehearse_deadlines(self, name: str) -> Report:
        """Compare the deadlines of a saga that have no instance yet."""
        report, saga = Report(), self._sagas[name]
        if saga.deadline is None:
            return report
        async for id_, stored, event in read_deadlines(self._record, name, saga.own_type):
            report.counts["timers"] += 1
            try:
                found = saga.deadline.find(saga.find_subscription(event.stream).events.decode(event))
                text = (
                    "" if found.astimezone(UTC) == stored else f"{stored.isoformat()} -> {found.isoformat()}"
                )
            except Exception as error:  # of the installed code
                text = describe_error(error)
            if text:
                field = f"{name}.{saga.deadline.timer}"
                report.add(Difference("timers", field, f"{name} {id_} version 1", text))
        return report


class _Comparison:
    """The comparison of one instance."""

    def __init__(
        self, saga: Saga[Any], recorded: RecordedSaga, beginning: datetime | None, report: Report
    ) -> None:
        self._saga, self._recorded, self._report = saga, recorded, report
        self._beginning = beginning
        self._row = recorded.row
        self._id: str = recorded.row["id"]
        self._own = streams.stream_name(saga.own_type, self._id) if saga.own_type else ""
        self._is_exact = recorded.is_complete
        """Whether all inputs are on record."""

    def run(self) -> None:
        row, name = self._row, self._saga.name
        if row["unreadable"] or not self._recorded.is_row_readable:
            self._report.notes[f"instances of {name} cannot be read by the running release"] += 1
            return
        self._report.counts["sagas"] += 1
        if error := self._find_row_error():
            self._add("sagas", "row", error)
            return
        self._compare_status()
        if row["archived_steps"]:
            self._report.notes[f"instances of {name} have archived steps, so they are not replayed"] += 1
            return
        if self._recorded.is_long:
            self._report.notes[f"instances of {name} have too many inputs to replay"] += 1
            return
        self._replay()

    def _find_row_error(self) -> str:
        row = self._row
        state, other_streams = (msgspec.json.decode(row[column]) for column in ("state", "other_streams"))
        return find_error(self._saga, state, other_streams)

    def _compare_status(self) -> None:
        """Compare the status that follows from the stored state."""
        row = self._row
        status = self._saga.describe_status(msgspec.json.decode(row["state"], type=type(self._saga.initial)))
        stored = {"status": row["status"], "ended": row["ended"], "waiting_for": row["waiting_for"]}
        found = {"status": status.state, "ended": status.ended, "waiting_for": status.waiting_for}
        if not self._has_failed:
            stored["blocked_reason"], found["blocked_reason"] = row["blocked_reason"], status.blocked_reason
        for field, value in stored.items():
            if found[field] != value:
                self._add("sagas", field, f"{field} {value or 'none'} -> {found[field] or 'none'}")

    @property
    def _has_failed(self) -> bool:
        """Whether the running release could not process an event."""
        return bool(self._row["failed_input"]) or '"failed_input": "version' in self._row["other_streams"]

    def _replay(self) -> None:
        recorded, row = self._recorded, self._row
        try:
            own, others = self._collect_events()
        except Exception as error:  # of the installed code: an event may be one that it cannot decode
            self._add("events", type(error).__name__, f"cannot receive an event: {describe_error(error)}")
            return
        queues = [own, *others, self._collect_actions(), *self._collect_replies()]
        self._report.counts["steps"] += len(recorded.steps)
        self._report.counts["timers"] += len(recorded.timers)
        history = History(self._id, queues, recorded.steps, row["state"], recorded.timers)
        found = Replay(self._saga, history).run(list(self._find_starts(queues)))
        if found is None:
            self._report.notes[f"instances of {self._saga.name} have too many inputs to replay"] += 1
        elif found and not self._is_exact:
            note = f"instances of {self._saga.name} differ, but not all of their inputs are on record"
            self._report.notes[note] += 1
        else:
            for kind, path, text in found:
                self._add(kind, path, text)

    def _find_starts(self, queues: Sequence[Sequence[KnownInput]]) -> Iterator[Start]:
        """Yield the ways in which the instance may have begun: with its first event, or at its deadline."""
        nothing = (0,) * len(queues)
        yield self._saga.initial, nothing, {}
        deadline = self._saga.deadline
        if deadline is not None and queues[0]:
            first: Any = queues[0][0].input
            try:
                due_at = deadline.find(first.event).astimezone(UTC)
                state = deadline.begin(self._id, due_at)
            except Exception:  # then it has begun with its first event
                return
            yield state, (1, *nothing[1:]), {deadline.timer: due_at}

    def _collect_events(self) -> tuple[list[KnownInput], list[list[KnownInput]]]:
        """Return the events of the own stream, and those of each other stream that belong to the instance."""
        own, others = list[KnownInput](), list[list[KnownInput]]()
        for stream, events in self._recorded.events.items():
            subscription = self._saga.find_subscription(stream)
            belonging = [
                event
                for event in events
                if not is_before(self._beginning, event) and subscription.find_instance(event) == self._id
            ]
            if stream == self._own:
                own = [self._to_input(event, subscription.events.decode(event)) for event in belonging]
            else:
                others.append([self._to_input(each, subscription.events.decode(each)) for each in belonging])
        return own, others

    def _to_input(self, event: RecordedEvent, message: Any) -> KnownInput:
        at = event.recorded_at
        return KnownInput(at, EventReceived(message, event.version, event.stream, at), is_exact=False)

    def _collect_actions(self) -> list[KnownInput]:
        return [
            KnownInput(at, RetryRequested(at) if action == "retry" else AbortRequested(reason, at))
            for at, action, reason in self._recorded.actions
        ]

    def _collect_replies(self) -> Iterator[list[KnownInput]]:
        """Yield each reply as a queue of its own, since replies to several steps come in any order."""
        for number, step in enumerate(self._recorded.steps, 1):
            if step.outcome is None or step.answered_at is None:
                continue
            answer = self._recorded.answers.get(step.request_id)
            if answer is None:
                self._is_exact = False
            reply = _build_reply(step, answer or Answer(), step.answered_at)
            yield [KnownInput(step.answered_at, reply, sent_after=number)]

    def _add(self, kind: str, path: str, text: str) -> None:
        name = self._saga.name
        subject = f"{name} {self._id} version {self._row['version']}"
        self._report.add(Difference(kind, f"{name}.{path}", subject, text))


def _build_reply(step: RecordedStep, answer: Answer, at: datetime) -> StepSucceeded | StepRejected:
    if step.outcome != "OK":
        return StepRejected(step.step, step.outcome or "", answer.details, at)
    service, _, method = step.method[1:].partition("/")
    descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[method]
    response: Any = message_class(descriptor.output_type)()
    if "receipt" in descriptor.output_type.fields_by_name:
        response.receipt.version = answer.version
    return StepSucceeded(step.step, response, at)
