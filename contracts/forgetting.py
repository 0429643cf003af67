"""The event that ends the data of a person in a stream. It is the kernel's, and belongs to no context.

Readers of the stream fold nothing of it: states stay as they are, and views are folded again from their first
event, since what was sealed with the key can be read no more.
"""

from typing import Any

from diptych.privacy.v1.privacy_pb2 import SubjectForgotten

FORGOTTEN = SubjectForgotten.DESCRIPTOR.full_name
"""The type of the event."""
FORGET_TIME = "forget_time"
"""The field of a view that says when its person was forgotten."""


def note_forgotten(view: Any, data: bytes) -> None:
    """Set the time of a view, if it has the field.

    Args:
        view: the message.
        data: of the event.
    """
    if FORGET_TIME in view.DESCRIPTOR.fields_by_name:
        view.forget_time.CopyFrom(SubjectForgotten.FromString(data).forgotten_at)
