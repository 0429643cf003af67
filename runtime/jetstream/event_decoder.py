"""Decodes messages of the stream, also those that no relay can have published."""

from contracts.envelope import RecordedEvent, from_message
from runtime.jetstream.stream import Message
from runtime.process import logs

log = logs.get_logger(__name__)
_foreign = logs.LimitedErrors(log, "Message is not an event")


def decode_event(message: Message) -> RecordedEvent | None:
    """Return a message's event; None if the relay cannot have published it, which is logged.

    If such a message has replaced an event, the next event of its stream reveals the missing version.
    """
    try:
        return from_message(message.subject, message.headers, message.data)
    except (KeyError, ValueError) as error:
        _foreign.report(subject=message.subject, at=message.sequence, error=repr(error))
        return None
