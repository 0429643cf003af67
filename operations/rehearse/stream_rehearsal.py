"""The rehearsal of streams: their states and views, a page at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts import streams
from operations.rehearse.installed_code import InstalledCode
from operations.rehearse.recorded import Record, Skips, StoredState
from operations.rehearse.report import Difference, Report
from operations.rehearse.state_fold import StateFold
from operations.rehearse.stored_views import StoredView, StoredViews
from operations.rehearse.view_fold import ViewFold
from projector.projection import Projection
from runtime.skipped_events import name_projection

Pair = tuple[str, str]
"""A stream, and the name of a projection."""
HISTORY_ENTRIES = 2_000
"""History entries that are compared at once, roughly."""


@dataclass
class PageResult:
    """The report on a page of streams."""

    report: Report = field(default_factory=Report)
    moved: list[Pair] = field(default_factory=list)
    """Views that include later events than those of the snapshot."""


class StreamRehearsal:
    """Folds streams by the installed code and compares the results.

    Args:
        code: the installed code.
        record: the events.
        views: the stored views.
        serving: the generations whose views are compared, by projection.
    """

    def __init__(
        self, code: InstalledCode, record: Record, stored: StoredViews, serving: Mapping[str, str]
    ) -> None:
        self._code, self._record, self._stored = code, record, stored
        views = {each.view.projection: each.view for each in code.list_projections()}
        self._views = {name: views[name].at(generation) for name, generation in serving.items()}

    async def rehearse(self, page: Mapping[str, int]) -> PageResult:
        """Compare states and views with those of the record's snapshot.

        Args:
            page: the streams with their versions.
        """
        result = PageResult()
        pairs = [(name, each.view.projection) for name in page for each in self._list_projections(name)]
        stored = await self._read_views(pairs)
        for (name, projection), view in list(stored.items()):
            if view is not None and view.version > page[name]:
                result.moved.append((name, projection))
                stored[name, projection] = None
        states = await self._record.read_states(list(page)) if self._code.aggregates else {}
        result.report.counts["streams"] += len(page)
        result.report.counts["events"] += sum(page.values())
        await self._fold(list(page), stored, states, result.report)
        return result

    async def rehearse_again(self, pairs: Sequence[Pair]) -> PageResult:
        """Compare views that have moved, with all events that are committed once they were read."""
        result = PageResult()
        stored = await self._read_views(pairs)
        await self._record.renew()
        await self._fold(list(dict.fromkeys(name for name, _ in pairs)), stored, {}, result.report)
        return result

    async def _read_views(self, pairs: Sequence[Pair]) -> dict[Pair, StoredView | None]:
        """Return the stored views; None for those that are not compared."""
        result: dict[Pair, StoredView | None] = dict.fromkeys(pairs)
        compared = [pair for pair in pairs if pair[1] in self._views]
        keys = [(self._views[projection], streams.aggregate_id(name)) for name, projection in compared]
        result.update(zip(compared, await self._stored.read(keys), strict=True))
        return result

    async def _fold(
        self,
        names: Sequence[str],
        stored: Mapping[Pair, StoredView | None],
        states: Mapping[str, StoredState],
        report: Report,
    ) -> None:
        name, folds = "", list[StateFold | ViewFold]()
        skips = await self._record.read_skips(names)
        with_history, entries = dict[int, ViewFold](), 0
        async for events in self._record.read_events(names):
            if events[0].stream != name:
                name = events[0].stream
                folds = [
                    *self._begin_state(name, states, report),
                    *self._begin_views(name, stored, skips, report),
                ]
            for fold in folds:
                fold.apply(events)
                if isinstance(fold, ViewFold) and fold.history:
                    with_history[id(fold)] = fold
                    entries += len(events)
            if entries >= HISTORY_ENTRIES:
                await self._compare_history(list(with_history.values()))
                with_history.clear()
                entries = 0
        await self._compare_history(list(with_history.values()))

    def _begin_state(self, name: str, states: Mapping[str, StoredState], report: Report) -> list[StateFold]:
        aggregate = self._code.aggregates.get(streams.stream_type(name))
        if aggregate is None or name not in states:
            return []
        return [StateFold(aggregate, name, states[name], report)]

    def _begin_views(
        self, name: str, stored: Mapping[Pair, StoredView | None], skips: Skips, report: Report
    ) -> Iterator[ViewFold]:
        for projection in self._list_projections(name):
            pair = (name, projection.view.projection)
            if pair not in stored:
                continue
            view = stored[pair]
            if view is not None and view.error:
                subject = f"{pair[1]} {streams.aggregate_id(name)}"
                report.add(Difference("views", f"{pair[1]}.view", subject, f"cannot be read: {view.error}"))
                view = None
            if view is not None and not view.version:
                report.notes[f"views of {pair[1]} do not exist yet"] += 1
            skipped = skips.get((name_projection(pair[1]), name), frozenset())
            yield ViewFold(projection, name, view, report, skipped)

    def _list_projections(self, name: str) -> Sequence[Projection[Any]]:
        return self._code.projections.get(streams.stream_type(name), ())

    async def _compare_history(self, folds: Sequence[ViewFold]) -> None:
        wanted = [(self._views[fold.name], fold.view_id, list(fold.history)) for fold in folds]
        for fold, (entries, first) in zip(folds, await self._stored.read_history(wanted), strict=True):
            fold.compare_history(entries, first)
