"""The texts of customers: normalised, and without characters that nobody sees or that reorder others."""

from unicodedata import normalize

from command_server.contexts.customers.domain.messages import PostalAddress
from command_server.kernel.decider import Rejected
from command_server.kernel.hidden_characters import find_hidden_character


def clean_text(field: str, text: str, *, is_required: bool = True) -> str:
    """Return a text in Unicode's normal form C, without space at its ends.

    Args:
        field: the path of the field.
        text: its value.
        is_required: whether something must be left.

    Raises:
        Rejected: `TEXT_CHARACTER_FORBIDDEN` or `TEXT_EMPTY`.
    """
    if character := find_hidden_character(text):
        raise Rejected("TEXT_CHARACTER_FORBIDDEN", field=field, character=character)
    cleaned = normalize("NFC", text).strip()
    if is_required and not cleaned:
        raise Rejected("TEXT_EMPTY", field=field)
    return cleaned


def clean_address(address: PostalAddress) -> PostalAddress:
    """Return an address with its texts cleaned.

    Raises:
        Rejected: as `clean_text`.
    """
    lines = enumerate(address.address_lines)
    return PostalAddress(
        clean_text("address.recipient", address.recipient),
        tuple(clean_text(f"address.address_lines[{index}]", line) for index, line in lines),
        clean_text("address.postal_code", address.postal_code, is_required=False),
        clean_text("address.locality", address.locality),
        address.region_code,
    )
