"""Builds responses from messages that are stored serialised, without parsing them.

A view is a field of its response. On the wire such a field is a tag, a length and the stored bytes.
"""


def encode_field(number: int, payload: bytes) -> bytes:
    """Return a string, bytes or message field as a serialised Protobuf message contains it.

    A serialised message is the concatenation of its fields, and a repeated field occurs once per element. So
    the results can be joined with each other and with the rest of a serialised message.

    Args:
        number: the field's number, 1 to 15.
        payload: the string in UTF-8, the bytes, or the serialised message.
    """
    length = len(payload)
    prefix = bytearray((number << 3 | 2,))  # 2: length-delimited
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return bytes(prefix) + payload
