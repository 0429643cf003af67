"""The schedule of one call's attempts: which errors are followed by another attempt, and when.

How it works: before each attempt the connection gets its timeout from `start_attempt`, and after an error the
pause before the next attempt from `pause_after`. That raises the error if there will be no next attempt: the
error is final, the deadline would pass first, or the retry budget is used up. The schedule also remembers
whether an attempt ended without a response, because after that even a clear error can leave the outcome of a
command open (`outcome_of`). The connections sleep and call, so threads and asyncio share the rules.
"""

import random
import time
from collections.abc import Callable
from math import inf

from grpc import StatusCode

from diptych_client.errors import OutcomeUnknown, Rejection
from diptych_client.retry_budget import RetryBudget
from diptych_client.service_config import CALL_TIMEOUT

INITIAL_PAUSE = 0.05
"""Upper bound of the first pause, in seconds; it doubles from attempt to attempt."""
MAX_PAUSE = 2.0
"""Upper bound of a call's pauses, in seconds."""
MAX_WATCH_PAUSE = 5.0
"""Upper bound of a watch's pauses, in seconds."""

RETRIED = frozenset(
    {
        StatusCode.UNAVAILABLE,
        StatusCode.DEADLINE_EXCEEDED,
        StatusCode.CANCELLED,
        StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""Errors after which another attempt makes sense. For a command all but OVERLOADED leave the outcome open."""

TOO_LARGE = "larger than max"
"""Part of gRPC's error text for a request or response above its limit, which no retry changes; the status is
RESOURCE_EXHAUSTED, as for overload."""

DECIDED = frozenset(
    {
        StatusCode.INVALID_ARGUMENT,
        StatusCode.FAILED_PRECONDITION,
        StatusCode.NOT_FOUND,
        StatusCode.ALREADY_EXISTS,
        StatusCode.ABORTED,
    }
)
"""Errors that depend on the command alone: the recorded answer, or the same for every attempt."""

TOO_OLD = "REQUEST_TOO_OLD"
"""The reason of a server that no longer knows whether it has executed the command."""


class RetrySchedule:
    """The attempts of one call or watch.

    Args:
        timeout: seconds for all attempts together; infinite for a watch.
        budget: limits the retries of a connection; None for no limit.
        max_pause: upper bound of a pause, in seconds, unless the server requests a longer one.
        clock: returns seconds.
    """

    def __init__(
        self,
        timeout: float = inf,
        budget: RetryBudget | None = None,
        max_pause: float = MAX_PAUSE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._deadline = clock() + timeout
        self._budget = budget
        self._max_pause = max_pause
        self._retries = 0
        self._access_token = ""
        self._expired: Rejection | None = None
        self._may_have_taken_effect = False
        if budget is not None:
            budget.record_call()

    def start_attempt(self, access_token: str) -> float:
        """Return the timeout of the next attempt, in seconds.

        Raises:
            Rejection: the previous attempt's access token had expired, and this is the same one.
        """
        if self._expired is not None and access_token == self._access_token:
            raise self._expired
        self._access_token, self._expired = access_token, None
        return max(0.0, min(CALL_TIMEOUT, self._deadline - self._clock()))

    def pause_after(self, rejection: Rejection) -> float:
        """Return the seconds to wait between an attempt that failed and the next one.

        Raises:
            Rejection: the given one, because there will be no other attempt.
        """
        if rejection.reason == "TOKEN_EXPIRED":
            self._expired = rejection
        elif rejection.code not in RETRIED or TOO_LARGE in rejection.message:
            raise rejection
        elif rejection.reason != "OVERLOADED":
            self._may_have_taken_effect = True
        pause = self.next_pause() + (rejection.retry_after or 0.0)
        remaining = self._deadline - self._clock()
        if pause >= remaining:
            raise rejection
        wait = self._budget.reserve(remaining) if self._budget else 0.0
        if wait is None:
            raise rejection
        return max(pause, wait)

    def next_pause(self) -> float:
        """Return the next pause by exponential backoff, in seconds; jitter shortens it by up to half."""
        bound = min(self._max_pause, INITIAL_PAUSE * 2.0 ** min(self._retries, 32))
        self._retries += 1
        return bound * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret

    def reset_pauses(self) -> None:
        """Return to the initial pause; call it after a success."""
        self._retries = 0

    def outcome_of(self, rejection: Rejection, request_id: str) -> Rejection | OutcomeUnknown:
        """Return the error of a command whose last attempt was rejected.

        An attempt without an answer may have taken effect. A later PERMISSION_DENIED, for instance, does not
        change that, because the server sends it before it looks the request id up.
        """
        forgotten = rejection.reason == TOO_OLD
        if self._may_have_taken_effect and (forgotten or rejection.code not in DECIDED):
            return OutcomeUnknown(request_id, rejection)
        return rejection
