"""Keys with which a batch seals personal data, one for each person.

How it works. Whom an event is about is known only when it was decided. So events stay in clear, in memory,
until the last decision of the batch. Then the transaction reads the keys that are not at hand, or makes
them, all in one statement, and the events are sealed. Keys are kept for further batches only after the
commit: a key that was made in a transaction without effect must never seal anything.
"""

from collections.abc import Callable, Iterable, Mapping
from time import monotonic
from typing import Protocol

from command_server.kernel.ports import StoreConflict, StoreFailed, Transaction
from contracts.personal_data import SubjectKey
from contracts.subject_keys import MasterKeyMissing, Wrapper, create_keys
from runtime.subject_keys import KeyCache

MAX_KEPT = 50_000
"""Keys that are kept, at most."""
MASTER_KEY_MISSING = "PERSONAL_KEY_MISSING"
"""The cause that callers are told."""


class Keeper(Protocol):
    """Keeps keys for those who open events."""

    @property
    def wrapper(self) -> Wrapper: ...

    def keep(self, keys: "list[SubjectKey]") -> None: ...


class Sealing:
    """The keys that a process seals with.

    Args:
        keeper: wraps and unwraps keys; None to record all data in clear.
        clock: returns seconds.
    """

    def __init__(self, keeper: Keeper | None = None, clock: Callable[[], float] = monotonic) -> None:
        self._keeper = keeper
        self._kept = KeyCache[str](MAX_KEPT, clock)
        """By subject."""

    def begin(self) -> "BatchKeys | None":
        """Return the keys of a batch; None if data is recorded in clear, since there is no master key."""
        if self._keeper is None or not self._keeper.wrapper.can_wrap:
            return None
        return BatchKeys(self, self._keeper.wrapper)

    def find(self, subject: str) -> SubjectKey | None:
        return self._kept.find(subject)

    def keep(self, keys: Mapping[str, SubjectKey]) -> None:
        self._kept.keep(keys)
        if self._keeper is not None:
            self._keeper.keep(list(keys.values()))


class BatchKeys:
    """The keys of one batch; `Sealing.begin` creates it."""

    def __init__(self, sealing: Sealing, wrapper: Wrapper) -> None:
        self._sealing = sealing
        self._wrapper = wrapper
        self._held: dict[str, SubjectKey] = {}
        """Those that the batch has; it keeps them although they may be read again meanwhile."""
        self._read: dict[str, SubjectKey] = {}
        """Those that it has read or made."""
        self._required: set[str] = set()
        """The subjects whose data must be recorded, or the command be refused."""
        self.missing: set[str] = set()
        """The subjects whose keys are needed and not at hand."""

    def require(self, subject: str) -> bool:
        """Note that data of a subject is to be recorded; return False if the key is known to be destroyed."""
        self._required.add(subject)
        self.look_for([subject])
        return subject in self.missing or self._held[subject].cipher is not None

    def look_for(self, subjects: Iterable[str]) -> None:
        """Note which of the keys of these subjects are missing."""
        for subject in subjects:
            if subject not in self._held:
                if (key := self._sealing.find(subject)) is None:
                    self.missing.add(subject)
                else:
                    self._held[subject] = key

    def find(self, subject: str) -> SubjectKey:
        """Return the key of a subject that was looked for, and obtained if it was missing."""
        return self._held[subject]

    async def obtain(self, transaction: Transaction) -> None:
        """Read the missing keys, and make those that do not exist.

        Raises:
            StoreConflict: another transaction is making one of them, or a required one was destroyed. The
                next attempt of the batch refuses the command.
            StoreFailed: a master key is missing, or one of them is damaged.
        """
        try:
            candidates, keys = await create_keys(self._wrapper, sorted(self.missing))
            rows = await transaction.obtain_keys(candidates)
            if self.missing - rows.keys():
                raise StoreConflict("another transaction makes the key of the same person")
            keys |= await self._wrapper.unwrap(row for row in rows.values() if row.id not in keys)
        except MasterKeyMissing as error:
            raise StoreFailed(str(error), MASTER_KEY_MISSING) from error
        if damaged := [subject for subject, row in rows.items() if row.id not in keys]:
            raise StoreFailed(f"the keys of {len(damaged)} persons are damaged", "PERSONAL_KEY_DAMAGED")
        read = {subject: keys[row.id] for subject, row in rows.items()}
        self._read |= read
        self._held |= read
        self.missing.clear()
        destroyed = {subject: key for subject, key in read.items() if key.cipher is None}
        if not self._required.isdisjoint(destroyed):
            self._sealing.keep(destroyed)
            raise StoreConflict("a person was forgotten")

    def keep(self) -> None:
        """Keep the keys for further batches; call it after the commit."""
        if self._read:
            self._sealing.keep(self._read)
