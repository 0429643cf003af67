"""Unique values of commands: values that at most one aggregate may have, and that no id may reveal.

How it works. A value is unique if it has a stream of its own: a command that claims it writes to that stream,
too. The stream's id is a code of the value under the key ring (`contracts.hidden_ids`), since ids become
subjects and keys. Rules are pure and have no keys. So a command class has a field `unique_values`, which
requests do not have, and a property `claimed_texts`, the texts among its fields. The edge puts each text in
its one form, computes the ids, and puts both into that field, or an `InvalidValue`.

After a rotation a value has several ids. The command names the streams of all of them, and claims the first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from time import time
from typing import Any

from command_server.kernel.decider import InvalidValue, UniqueValue
from contracts.hidden_ids import list_hidden_ids
from contracts.signed_tokens import GetKeyRing

UNIQUE_FIELD = "unique_values"
"""The command field with the values: a mapping by text."""


@dataclass(frozen=True)
class UniqueValues:
    """The unique values of a context's commands.

    Args:
        stream_type: the type of the streams that claim them.
        normalize: returns the one form of a text. ValueError: it has none; the message is the cause.
    """

    stream_type: str
    normalize: Callable[[str], str]

    def build_completion(self, get_ring: GetKeyRing) -> Callable[[Any], Any]:
        """Return a function that returns a command with its unique values."""

        def read(text: str) -> UniqueValue | InvalidValue:
            try:
                normalized = self.normalize(text)
            except ValueError as error:
                return InvalidValue(str(error))
            ids = list_hidden_ids(get_ring(), self.stream_type, normalized, time())
            return UniqueValue(normalized, ids)

        def complete(command: Any) -> Any:
            values: Mapping[str, Any] = {text: read(text) for text in command.claimed_texts}
            return replace(command, **{UNIQUE_FIELD: values})

        return complete
