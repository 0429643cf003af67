"""The limit on reruns of batches: a slow or absent store is not asked several times for each command."""

from time import perf_counter

MAX_RERUNS = 2
"""Further attempts of a batch after a conflict or a lost connection."""
MAX_RERUN_TIME = 1.0
"""Seconds after the beginning of a batch until which it may run again after a lost connection. A store that
takes longer is slow, and another attempt would make the callers and the next batches wait for it again."""
CAPACITY = 10.0
RATIO = 0.1
"""Reruns after lost connections: so many at once, and on average this part of the batches."""


class RerunBudget:
    """A token bucket: a rerun after a lost connection takes a token, each batch puts a part of one back.

    Conflicts take none: in each conflict another writer has succeeded, so reruns do not pile up.
    """

    def __init__(self) -> None:
        self._tokens = CAPACITY

    def begin_batch(self) -> "BatchAttempts":
        self._tokens = min(CAPACITY, self._tokens + RATIO)
        return BatchAttempts(self)

    def take(self) -> bool:
        """Take a token; return False if there is none."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class BatchAttempts:
    """The attempts of one batch."""

    def __init__(self, budget: RerunBudget) -> None:
        self._budget = budget
        self._reruns = 0
        self._began_at = perf_counter()

    def may_rerun(self, *, lost: bool) -> bool:
        """Return whether the batch may run again after a failed attempt, and count that rerun.

        Args:
            lost: whether the connection was lost; otherwise there was a conflict.
        """
        self._reruns += 1
        if self._reruns > MAX_RERUNS:
            return False
        return not lost or (perf_counter() - self._began_at < MAX_RERUN_TIME and self._budget.take())
