"""Opens and seals the states of aggregates beside the statements that read and write them."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace

from command_server.kernel.ports import StoredSnapshot, StoredStream
from contracts.sealed_states import list_state_keys, open_state, seal_state
from contracts.subject_keys import WrappedKey
from runtime.subject_keys import Fetch, SubjectKeys

READ_KEYS_OF_SUBJECTS = "SELECT id, wrapped_by, wrapped FROM subject_keys WHERE subject = ANY($1::text[])"

FetchOfSubjects = Callable[[Collection[str]], Awaitable[Sequence[WrappedKey]]]
"""Returns the existing keys of subjects."""


async def open_streams(
    keys: SubjectKeys | None, streams: Mapping[str, StoredStream], fetch: Fetch
) -> Mapping[str, StoredStream]:
    """Return streams with their states in clear, and without those that cannot be opened."""
    ids = {id_ for row in streams.values() for id_ in list_state_keys(row.state)}
    if keys is None or not ids:
        return streams
    found = await keys.find(ids, fetch)
    return {
        name: replace(row, state=open_state(row.state, name, found)) if list_state_keys(row.state) else row
        for name, row in streams.items()
    }


async def open_snapshot(
    keys: SubjectKeys | None, snapshot: StoredSnapshot | None, stream: str, fetch: Fetch
) -> StoredSnapshot | None:
    """Return a snapshot in clear; None if it cannot be opened."""
    if keys is None or snapshot is None or not (ids := list_state_keys(snapshot.state)):
        return snapshot
    state = open_state(snapshot.state, stream, await keys.find(ids, fetch))
    return None if state is None else replace(snapshot, state=state)


async def seal_snapshot(
    keys: SubjectKeys | None, snapshot: StoredSnapshot, stream: str, fetch: FetchOfSubjects
) -> str | None:
    """Return the state of a snapshot as it is to be stored; None if it is not to be.

    A person without a key has data in clear alone, from before the first master key.
    """
    if keys is None or not snapshot.subjects:
        return snapshot.state
    found = await keys.wrapper.unwrap(await fetch(snapshot.subjects))
    return seal_state(snapshot.state, stream, list(found.values()))
