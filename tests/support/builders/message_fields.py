"""Walks through the fields of messages, by their descriptors."""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor


def walk_fields(message: Descriptor, visited: frozenset[str] = frozenset()) -> Iterator[FieldDescriptor]:
    """Yield every field of a message and of the messages in its fields; recursion ends at a message seen."""
    if message.full_name in visited:
        return
    for field in message.fields:
        yield field
        if field.message_type is not None:
            yield from walk_fields(field.message_type, visited | {message.full_name})
