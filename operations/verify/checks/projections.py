"""What is in Redis that no look at an aggregate has seen, one projection at a time.

A look counts only if the projection stayed in one filling: while it is wiped, whatever is still there seems
to be too much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from contracts import streams
from operations.verify.checks import event_counters, sorted_sets, view_counters
from operations.verify.checks.checkpoints import check_parked, check_progress
from operations.verify.checks.derived import Tally
from operations.verify.model import Reading
from operations.verify.recheck import settled
from operations.verify.report import Problem, Report
from operations.verify.sources.event_store import Store
from operations.verify.sources.read_model import ReadModel, id_of
from operations.verify.sources.stream import Feed


@dataclass(frozen=True)
class Projections:
    """Compares projections with what the looks at aggregates have added up."""

    store: Store
    redis: ReadModel
    feed: Feed
    incarnation: str
    standby: bool
    """Whether PostgreSQL may be behind the other servers."""
    tally: Tally
    before: Mapping[str, event_counters.Look]
    """The tallies of the projections that have some, from before the aggregates were looked at."""

    async def look(self, reading: Reading, shown: int, within: float) -> Report:
        """Return what is wrong with a projection, as seen in one filling of it.

        Args:
            reading: the projection.
            shown: how many findings of each check are kept.
            within: seconds that it has to catch up, and to stay in one filling.
        """
        deadline = monotonic() + within
        while True:
            behind = await settled(
                lambda: check_progress(self.redis, reading, self.feed, self.incarnation), deadline
            )
            filling = await self.redis.filling(reading.view)
            report = Report(shown)
            await self._derived(reading, report, deadline)
            present = filling[0] is not None or behind
            if present and filling == await self.redis.filling(reading.view):
                break
            if monotonic() > deadline:
                report = Report(shown, notes=[f"{reading.name} was filled anew: it could not be compared"])
                break
        report.counted["projections"] = 1
        report.add_all(behind)
        return report

    async def _derived(self, reading: Reading, report: Report, deadline: float) -> None:
        report.add_all(await settled(lambda: check_parked(self.redis, reading), deadline))
        members, sums = self.tally.members, self.tally.sums
        async for problem in sorted_sets.check(self.redis, reading, members, report.counted):
            report.add(problem)
        problems, changing = await view_counters.check(self.redis, reading, sums, report.counted, deadline)
        report.add_all(problems)
        report.notes += [f"{key} kept changing: it could not be compared" for key in changing]
        await self._tallied(reading, report)
        for kind, check in (("view", "views"), ("history", "history")):
            async for keys in self.redis.keys(kind, reading.view):
                report.add_all(await self._nobodys(reading, check, keys))

    async def _tallied(self, reading: Reading, report: Report) -> None:
        if (before := self.before.get(reading.name)) is None:
            return
        after = await event_counters.look(self.redis, reading)
        report.counted["event counters"] = len(after.counters)
        report.counted["event counter keys"] = len({key for key, _ in after.counters})
        if before.filling != after.filling:
            report.notes.append(f"{reading.name} was filled anew: its event counters could not be compared")
            return
        ours = f"event_counters:{reading.name}:"
        sums = {place: sum_ for place, sum_ in self.tally.tallied.items() if place[0].startswith(ours)}
        report.add_all(list(event_counters.compare(before, after, sums)))

    async def _nobodys(self, reading: Reading, check: str, keys: Sequence[str]) -> Sequence[Problem]:
        """Return the keys of aggregates that do not exist."""
        if self.standby:  # what is missing here may be on its way
            return ()
        names = {
            key: {streams.stream_name(kind, id_of(key)) for kind in reading.view.source_streams}
            for key in keys
        }
        existing = await self.store.existing([name for several in names.values() for name in several])
        subject = "view" if check == "views" else "history"
        return [
            Problem(check, f"{subject} {reading.name} {id_of(key)}", "there is no such aggregate")
            for key, several in names.items()
            if not several & existing
        ]
