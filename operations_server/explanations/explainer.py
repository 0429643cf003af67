"""Explains a subject: finds the aggregates, event or requests that it names, and gathers their records."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from diptych.operations.v1.explanation_pb2 import Explanation

from contracts import streams
from operations_server.explanations import summaries
from operations_server.explanations.acts import ActReader, create_act_entry
from operations_server.explanations.audit import AuditedRequest, AuditReader
from operations_server.explanations.causes import CauseFinder
from operations_server.explanations.chain import Chain, Entry
from operations_server.explanations.command_words import create_refused_entry, create_request_entry
from operations_server.explanations.followers import Followed, Follower
from operations_server.explanations.record_reader import RecordReader, RequestKey, StoredEvent
from operations_server.explanations.subjects import (
    Moment,
    Subject,
    check_not_before,
    find_version,
    parse_subject,
    read_request_time,
)
from operations_server.explanations.words import name_stream
from operations_server.records.versions import check_not_future
from runtime.grpc.rpc_error import RpcError

MAX_REJECTED = 50
"""Rejected commands of an aggregate that are read, the latest."""


class Explainer:
    """Explains aggregates, events and requests.

    Args:
        records: reads streams and answers.
        audit: finds commands.
        follower: finds the effects of events.
        causes: finds the causes of commands.
        acts: finds the acts of operators.
        stream_types: the types of all streams.
    """

    def __init__(
        self,
        records: RecordReader,
        audit: AuditReader,
        follower: Follower,
        causes: CauseFinder,
        acts: ActReader,
        stream_types: Collection[str],
    ) -> None:
        self._records = records
        self._audit = audit
        self._follower = follower
        self._causes = causes
        self._acts = acts
        self._stream_types = sorted(stream_types)

    async def explain(self, text: str, moment: Moment) -> list[Explanation]:
        """Return the explanations of everything that a text names: aggregates, an event, requests.

        Raises:
            RpcError: `SUBJECT_NOT_FOUND`, `TIME_IN_FUTURE`, `BEFORE_FIRST_EVENT`, `VERSION_NOT_REACHED`.
        """
        now = await self._records.read_now()
        if moment.time is not None:
            check_not_future(moment.time, now)
        subject = parse_subject(text, self._stream_types)
        explanations, too_early = await self._explain_streams(subject, moment, now)
        if subject.event:
            explanations += await self._explain_event(*subject.event, moment, now)
        if subject.request_id:
            explanations += await self._explain_requests(
                subject.request_id, moment, now, is_needed=not explanations
            )
            if not explanations:
                explanations = await self._explain_refused(subject.request_id, moment, now)
        if not explanations and too_early is not None:
            raise too_early
        if not explanations:
            raise RpcError.not_found("operations", "SUBJECT_NOT_FOUND", describe_missing(text, subject))
        return explanations

    async def _explain_streams(
        self, subject: Subject, moment: Moment, now: datetime
    ) -> tuple[list[Explanation], RpcError | None]:
        """Return the explanations of aggregates, and why one has none as of the moment."""
        versions = await self._records.read_versions(subject.streams) if subject.streams else {}
        explanations, too_early = list[Explanation](), None
        for stream, latest in sorted(versions.items()):
            try:
                version = await find_version(self._records, stream, latest, moment)
            except RpcError as error:
                too_early = error
                continue
            explanations.append(await self._explain_stream(stream, version, latest, moment, now))
        return explanations, too_early

    async def _explain_stream(
        self, stream: str, version: int, latest: int, moment: Moment, now: datetime
    ) -> Explanation:
        events = await self._records.read_ends(stream, version)
        if not events:
            return Chain().to_message(name_stream(stream), f"all of its {version} events are missing")
        until = moment.time
        if until is None and version < latest:
            until = events[-1].event.recorded_at
        chain = Chain(until)
        _add_gap(chain, stream, events)
        self._follower.add_events(chain, events, depth=0)
        times = {each.key: each.event.recorded_at for each in events if any(each.key)}
        rejected = await self._add_rejected(chain, stream, now)
        answers = await self._records.read_answers(times)
        await self._follower.add_effects_elsewhere(chain, answers.values(), {stream}, depth=1)
        found = await self._follower.follow(chain, events, now)
        for number, act in enumerate(await self._acts.find(streams.aggregate_id(stream))):
            chain.add(("operator act", number), create_act_entry(act))
        waits = list[str]()
        if until is None:
            await self._follower.add_views(chain, stream, latest, now, found)
            waits = await self._follower.list_waits(events[-1].event, found)
        times |= {each.key: each.recorded_at for each in rejected}
        sent = [(key, at) for key, at in times.items() if key not in found.step_keys]
        await self._causes.add_causes(chain, sent)
        summary = summaries.describe_stream(events[-1], found, now, until, waits)
        return chain.to_message(name_stream(stream), summary)

    async def _add_rejected(self, chain: Chain, stream: str, now: datetime) -> Sequence[AuditedRequest]:
        found = await self._audit.find_rejected(stream, chain.until or now, MAX_REJECTED)
        answers = await self._records.read_answers([each.key for each in found.requests])
        for each in found.requests:
            entry = create_request_entry(each, answers.get(each.key), depth=0)
            chain.add(("command", *each.key), entry)
        if not found.is_complete:
            text = "earlier rejected commands, if there are any, were not searched"
            time = found.requests[-1].recorded_at if found.requests else chain.until or now
            before = time - timedelta(microseconds=1)
            chain.add_note("rejected", Entry(before, Explanation.KIND_REJECTED, text))
        return found.requests

    async def _explain_event(
        self, stream: str, version: int, moment: Moment, now: datetime
    ) -> list[Explanation]:
        stored = await self._records.read_event(stream, version)
        if stored is None:
            return []
        check_not_before(moment, stored.event.id, stored.event.recorded_at)
        chain = Chain(moment.time)
        request = await self._audit.find_request(stored.key, stored.event.recorded_at)
        found = await self._explain_command(chain, stored.key, request, [stored], now)
        latest = (await self._records.read_versions([stream])).get(stream, version)
        if moment.time is None:
            await self._follower.add_views(chain, stream, latest, now, found)
        return [chain.to_message(stored.event.id, summaries.describe_event(stored))]

    async def _explain_command(
        self,
        chain: Chain,
        key: RequestKey,
        request: AuditedRequest | None,
        events: Sequence[StoredEvent],
        now: datetime,
    ) -> Followed:
        """Add a command, all of its events, its cause, and what followed."""
        answers = await self._records.read_answers([key])
        if request is not None:
            chain.add(("command", *key), create_request_entry(request, answers.get(key), depth=0))
            await self._causes.add_cause(chain, request)
        all_events = {each.event.id: each for each in events}
        for each in await self._records.read_events_of(answers.values()):
            all_events.setdefault(each.event.id, each)
        ordered = sorted(all_events.values(), key=lambda each: each.event.position)
        self._follower.add_events(chain, ordered, depth=0)
        if not ordered:
            return Followed()
        return await self._follower.follow(chain, ordered, now, since=ordered[0].event.recorded_at)

    async def _explain_requests(
        self, request_id: str, moment: Moment, now: datetime, *, is_needed: bool
    ) -> list[Explanation]:
        explanations = []
        found = await self._audit.find_requests(request_id, moment.time)
        for request in found.requests:
            if moment.time is not None and request.recorded_at > moment.time:
                continue
            chain = Chain(moment.time)
            await self._add_refused(chain, request_id, request.recorded_at)
            await self._explain_command(chain, request.key, request, (), now)
            subject = f"request {request_id} of {request.caller}"
            explanations.append(chain.to_message(subject, summaries.describe_request(request)))
        if is_needed and not explanations and not found.is_complete:
            text = "the audit is not fully indexed yet, and was searched in part only"
            raise RpcError("WRITE_MODEL_UNAVAILABLE", text, retry_after=10.0)
        return explanations

    async def _explain_refused(self, request_id: str, moment: Moment, now: datetime) -> list[Explanation]:
        """Return the explanation of calls of which none was decided."""
        until = moment.time or now
        sent_at = min(now, read_request_time(request_id) or now)
        found = await self._audit.find_refused(request_id, sent_at)
        calls = [call for call in found if call.recorded_at <= until]
        if not calls:
            return []
        chain = Chain(moment.time)
        for number, call in enumerate(calls):
            chain.add(("refused", number), create_refused_entry(call, request_id))
        return [chain.to_message(f"request {request_id}", summaries.describe_refused(calls[-1]))]

    async def _add_refused(self, chain: Chain, request_id: str, near: datetime) -> None:
        for number, call in enumerate(await self._audit.find_refused(request_id, near)):
            chain.add(("refused", number), create_refused_entry(call, request_id))


def _add_gap(chain: Chain, stream: str, events: Sequence[StoredEvent]) -> None:
    """Add an entry for the events in the middle that were not read."""
    for before, after in pairwise(events):
        missing = after.event.version - before.event.version - 1
        if missing:
            chain.omitted += missing
            first, last = before.event.version + 1, after.event.version - 1
            text = (
                f"{missing:,} events of {name_stream(stream)} are omitted, versions {first} to {last};"
                f" diptych events {stream} lists them"
            )
            entry = Entry(before.event.recorded_at, Explanation.KIND_EVENT, text, stream, position=2**62)
            chain.add(("gap", stream), entry)


def describe_missing(text: str, subject: Subject) -> dict[str, str]:
    """Return the facts about a subject that is not on record, and what that means."""
    if subject.event:
        meaning = "no event of this stream and version was recorded"
    elif subject.request_id:
        meaning = (
            "no aggregate has this id, and no command with this request id was answered: it never arrived,"
            " was refused before it was authenticated, was lost before its commit, or is older than the"
            " record"
        )
    elif subject.streams:
        meaning = "no aggregate has this id: no command about it was accepted"
    else:
        meaning = "not an id, a stream (<context>.<aggregate>.<id>) or an event id (<stream>@<version>)"
    return {"subject": text, "meaning": meaning}
