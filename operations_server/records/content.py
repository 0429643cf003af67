"""How much of events, states and views is shown, and to whom."""

from enum import Enum
from typing import Any

from diptych.operations.v1.dead_letters_pb2 import EventContent

from runtime.grpc import caller
from runtime.grpc.rpc_error import RpcError

PERSONAL_SCOPE = "operations.personal"


class Content(Enum):
    """How much is shown."""

    NONE = "no field"
    MASKED = "personal fields are replaced"
    FULL = "all fields"


CONTENTS = {
    EventContent.EVENT_CONTENT_UNSPECIFIED: Content.MASKED,
    EventContent.EVENT_CONTENT_NONE: Content.NONE,
    EventContent.EVENT_CONTENT_MASKED: Content.MASKED,
    EventContent.EVENT_CONTENT_FULL: Content.FULL,
}


def read_content(request: Any) -> Content:
    """Return the content that a request asks for.

    Raises:
        RpcError: `SCOPE_MISSING`, the caller may not see personal fields.
    """
    content = CONTENTS[request.content]
    if content is Content.FULL and PERSONAL_SCOPE not in caller.current().scopes:
        text = f"the token lacks the scope {PERSONAL_SCOPE}"
        raise RpcError("SCOPE_MISSING", text, {"scope": PERSONAL_SCOPE})
    return content
