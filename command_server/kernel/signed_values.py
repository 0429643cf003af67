"""Signed values of commands: what tokens of another context say, verified before the decision.

How it works. A command class has a field `signed_values`, which requests do not have, and a property
`tokens`, the tokens among its fields. The edge verifies each token and puts its value into that field, or an
`InvalidValue`. So the rules decide about both, purely, and a token that is not valid ends as a recorded
rejection like any other.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import DecodeError

from command_server.kernel.decider import InvalidValue
from contracts.key_ring import Purpose
from contracts.signed_tokens import GetKeyRing, InvalidToken, TokenSigner
from runtime import codec

SIGNED_FIELD = "signed_values"
"""The command field with the values: a mapping by token."""


@dataclass(frozen=True)
class SignedValues:
    """The tokens of a context's commands.

    Args:
        purpose: of the keys that sign them.
        message: the message type of their payload.
        value: the dataclass of the domain with the same fields.
    """

    purpose: Purpose
    message: Any
    value: type

    def build_completion(self, get_ring: GetKeyRing) -> Callable[[Any], Any]:
        """Return a function that returns a command with the values of its tokens."""
        signer = TokenSigner(self.purpose, get_ring)
        decode = codec.decoder(self.message.DESCRIPTOR, self.value, ignored=("signature",))

        def read(token: str) -> Any:
            try:
                return decode(self.message.FromString(signer.verify(token)))
            except InvalidToken as error:
                return InvalidValue(error.cause)
            except DecodeError:
                return InvalidValue("MALFORMED")

        def verify(command: Any) -> Any:
            values: Mapping[str, Any] = {token: read(token) for token in command.tokens}
            return replace(command, **{SIGNED_FIELD: values}) if values else command

        return verify
