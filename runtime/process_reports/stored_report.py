"""A report as it was read from a store."""

from dataclasses import dataclass

import msgspec

from runtime.process_reports.report import LIFETIME, Report, decode

MAX_REPORTS = 500
"""Reports that are read from one store, the latest ones."""
MAX_LEAD = 5.0
"""Seconds by which a report may be of the future. A later one was written by a clock that was set back."""


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report with its age."""

    instance: str
    age: float
    """Seconds since the report, by the store's clock."""
    report: Report

    @classmethod
    def parse(cls, instance: str, age: float, report: str) -> "StoredReport":
        """Return a report; one that cannot be read is one of an unknown process without measurements."""
        try:
            return cls(instance, age, decode(report))
        except msgspec.MsgspecError:  # of another release
            return cls(instance, age, Report("unknown", "", 0.0))

    @property
    def is_living(self) -> bool:
        """Whether the process has reported lately."""
        return -MAX_LEAD <= self.age <= LIFETIME

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended, or is frozen."""
        return self.age > LIFETIME
