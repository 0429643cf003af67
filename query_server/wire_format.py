"""Builds responses from messages that are stored serialised, without parsing them.

A view is a field of its response. On the wire such a field is a tag, a length and the stored bytes.
Responses of one kind have the same field numbers in every context; `check_numbers` verifies that at start.
"""

from collections.abc import Iterable
from functools import partial

from google.protobuf.descriptor import Descriptor, ServiceDescriptor

VIEW, RESUME_TOKEN = 1, 2
"""The fields of a response with one view; a watch's responses have the token as well."""
ITEMS, NEXT_PAGE_TOKEN, ARCHIVED_BEFORE = 1, 2, 3
"""The fields of a response with a page; one of a history has the third as well."""
MISSING_IDS, UNREAD_IDS, ARCHIVED_IDS, UNREADABLE_IDS = 2, 3, 4, 5
"""The fields of a response with a batch; its views are ITEMS."""


def encode_field(number: int, payload: bytes) -> bytes:
    """Return a string, bytes or message field as a serialised Protobuf message contains it.

    A serialised message is the concatenation of its fields, and a repeated field occurs once per element. So
    the results can be joined with each other and with the rest of a serialised message.

    Args:
        number: the field's number, 1 to 15.
        payload: the string in UTF-8, the bytes, or the serialised message.
    """
    length = len(payload)
    prefix = [number << 3 | 2]  # 2: length-delimited
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + payload


def encode_number(field: int, value: int) -> bytes:
    """Return an integer field, 0 or more, as a serialised Protobuf message contains it."""
    encoded = [field << 3]  # 0: a varint
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


encode_view = partial(encode_field, VIEW)
"""Returns the serialised response whose field 1 is this serialised view."""


def encode_repeated(number: int, payloads: Iterable[bytes]) -> bytes:
    """Return a repeated field as a serialised Protobuf message contains it."""
    return b"".join([encode_field(number, payload) for payload in payloads])


BATCH_FIELDS = (
    ("missing_", MISSING_IDS),
    ("unread_", UNREAD_IDS),
    ("archived_", ARCHIVED_IDS),
    ("unreadable_", UNREADABLE_IDS),
)
"""The prefixes of their names."""


def check_numbers(service: ServiceDescriptor) -> None:
    """Check the field numbers of a QueryService's responses with pages or batches, and of its watches.

    Raises:
        ValueError: a response has other numbers.
    """
    for response in (method.output_type for method in service.methods):
        _check_fields(response, "next_page_token", NEXT_PAGE_TOKEN, is_repeated=True)
        _check_fields(response, "resume_token", RESUME_TOKEN, is_repeated=False)
        _check_fields(response, "archived_before_version", ARCHIVED_BEFORE, is_repeated=True)
        _check_fields(response, "older_archived", ARCHIVED_BEFORE, is_repeated=True)
        for prefix, number in BATCH_FIELDS:
            for name, field in response.fields_by_name.items():
                if field.is_repeated and name.startswith(prefix):
                    _check_fields(response, name, number, is_repeated=True)


def _check_fields(response: Descriptor, name: str, number: int, *, is_repeated: bool) -> None:
    if name not in response.fields_by_name:
        return
    first = response.fields_by_number.get(1)
    if first is None or first.message_type is None or first.is_repeated is not is_repeated:
        content = "a repeated message" if is_repeated else "a message"
        raise ValueError(f"{response.full_name}: field 1 of a response with {name} must be {content}")
    if response.fields_by_name[name].number != number:
        raise ValueError(f"{response.full_name}: {name} must be field {number}")
