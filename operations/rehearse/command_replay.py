"""The commands that are on record, decided again: the requests of sagas' steps.

How it works. The receipt of a request names the versions that its streams had after it. Its own events name
the request as their cause, so the versions before it are known, too. The states at these versions are folded,
and `decide` gets them with the recorded time: it has to return the recorded events. Hot streams would have to
be folded for each of their commands, so of each page of sagas some requests of each method are decided, and
none of which a stream was at a high version. Commands of other callers are not on record.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf import descriptor_pool

from command_server.kernel.context import CommandType
from command_server.kernel.decider import Rejected
from command_server.kernel.ports import StoredEvent
from contracts import streams
from contracts.envelope import RecordedEvent
from operations.rehearse.fields import diff_messages
from operations.rehearse.installed_code import InstalledCode
from operations.rehearse.recorded import Record
from operations.rehearse.report import Difference, Report
from operations.rehearse.saga_records import Answer, RecordedSaga, RecordedStep, read_slices
from runtime.codec import message_class
from runtime.process.logs.repeated_errors import describe_error

PER_METHOD = 5
"""Requests of each method that are decided of a page of sagas."""
MAX_VERSION = 200
"""The version of a stream after a request, at most."""

EventsByStream = Mapping[str, Sequence[RecordedEvent]]


class Mismatch(NamedTuple):
    """What the installed code decides otherwise: a part of the command, and what differs in it."""

    path: str
    text: str


class CommandReplay:
    """Decides recorded commands by the installed code.

    Args:
        code: the installed code.
        record: the record.
    """

    def __init__(self, code: InstalledCode, record: Record) -> None:
        self._code, self._record = code, record

    async def rehearse(self, sagas: Collection[RecordedSaga], report: Report) -> None:
        """Compare some requests of these sagas."""
        chosen = list(self._choose(sagas))
        last: Counter[str] = Counter()
        for _, answer in chosen:
            last |= Counter(answer.receipt)
        events = await read_slices(self._record, {name: (1, version) for name, version in last.items()})
        for step, answer in chosen:
            report.counts["commands"] += 1
            kind = self._code.commands[_name_method(step)]
            name = f"{kind.context}.{kind.name.rpartition('.')[2]}"
            try:
                mismatches = list(self._decide(kind, step, answer, events))
            except Exception as error:  # of the installed code
                mismatches = [Mismatch(type(error).__name__, describe_error(error))]
            for path, text in mismatches:
                subject = f"{name} {step.request_id} of {next(iter(answer.receipt))}"
                report.add(Difference("commands", f"{name}.{path}", subject, text))

    def _choose(self, sagas: Collection[RecordedSaga]) -> Iterator[tuple[RecordedStep, Answer]]:
        counts: Counter[str] = Counter()
        for saga in sagas:
            for step in saga.steps:
                answer = saga.answers.get(step.request_id)
                kind = self._code.commands.get(_name_method(step))
                if answer is None or kind is None or not answer.receipt or kind.needs_more:
                    continue
                if max(answer.receipt.values()) <= MAX_VERSION and counts[step.method] < PER_METHOD:
                    counts[step.method] += 1
                    yield step, answer

    def _decide(
        self,
        kind: CommandType,
        step: RecordedStep,
        answer: Answer,
        events: Mapping[str, Sequence[RecordedEvent]],
    ) -> Iterator[Mismatch]:
        """Yield what differs."""
        method = descriptor_pool.Default().FindMethodByName(_name_method(step))
        command = kind.decode(message_class(method.input_type).FromString(step.request), answer.caller)
        own: dict[str, list[RecordedEvent]] = {}
        states: dict[str, Any] = {}

        def add_state(name: str) -> None:
            recorded = [each for each in events.get(name, ()) if each.version <= answer.receipt.get(name, 0)]
            request_id = str(step.request_id)
            own[name] = [each for each in recorded if each.metadata.get("causation_id") == request_id]
            before = recorded[: len(recorded) - len(own[name])]
            aggregate = self._code.aggregates[streams.stream_type(name)]
            states[name] = aggregate.fold(aggregate.initial, [StoredEvent(e.type, e.data) for e in before])

        decider = kind.decider
        for name in decider.streams(command):
            add_state(name)
        for name in decider.related_streams(command, dict(states)):
            add_state(name)
        try:
            decided = decider.decide(command, states, answer.at)
        except Rejected as error:
            yield Mismatch("rejected", f"accepted -> {error.reason}")
            return
        for name in states:
            yield from self._compare(name, own[name], decided.get(name, ()))

    def _compare(
        self, name: str, recorded: Sequence[RecordedEvent], decided: Sequence[Any]
    ) -> Iterator[Mismatch]:
        """Yield the differences between the recorded events of a stream and those that are decided now."""
        aggregate = self._code.aggregates[streams.stream_type(name)]
        encoded = [aggregate.encode(event) for event in decided]
        before, after = (
            [_shorten(each) for each in types]
            for types in ([event.type for event in recorded], [type_ for type_, _ in encoded])
        )
        if before != after:
            yield Mismatch("events", f"{', '.join(before) or 'no event'} -> {', '.join(after) or 'no event'}")
            return
        for event, (type_, data) in zip(recorded, encoded, strict=True):
            if event.type == type_ and event.data != data:
                message = message_class(descriptor_pool.Default().FindMessageTypeByName(type_))
                for path, text in diff_messages(message, event.data, data):
                    yield Mismatch(f"{_shorten(type_)}.{path}", f"{_shorten(type_)}: {path} {text}")


def _name_method(step: RecordedStep) -> str:
    """Return the full name of a step's method."""
    return step.method[1:].replace("/", ".")


def _shorten(type_: str) -> str:
    return type_.rpartition(".")[2]
