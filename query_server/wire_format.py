"""Responses made of messages that are stored serialised, without parsing them.

A view is a field of its response; on the wire that is the field's tag, the length, and the stored bytes.
"""


def field(number: int, payload: bytes) -> bytes:
    """Return a string, bytes or message field as it stands in a serialised Protobuf message.

    A message is the sum of its fields, so fields made here can be put in a row; a repeated field is several
    of the same number.

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
