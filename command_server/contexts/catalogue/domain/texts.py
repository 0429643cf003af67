"""The texts of the catalogue: normalised, and without characters that nobody sees or that reorder others."""

import re
from dataclasses import replace
from unicodedata import normalize

from command_server.contexts.catalogue.domain.messages import Attribute, ProductDetails
from command_server.kernel.decider import Rejected
from command_server.kernel.hidden_characters import find_hidden_character

_PICTURE_URL = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[!-~]*)?")


def clean_text(field: str, text: str, *, is_required: bool = False, has_lines: bool = False) -> str:
    """Return a text in Unicode's normal form C, without space at its ends.

    Args:
        field: the path of the field.
        text: its value.
        is_required: whether something must be left.
        has_lines: whether line feeds are permitted.

    Raises:
        Rejected: `TEXT_CHARACTER_FORBIDDEN` or `TEXT_EMPTY`.
    """
    if character := find_hidden_character(text, permitted="\n" if has_lines else ""):
        raise Rejected("TEXT_CHARACTER_FORBIDDEN", field=field, character=character)
    cleaned = normalize("NFC", text).strip()
    if is_required and not cleaned:
        raise Rejected("TEXT_EMPTY", field=field)
    return cleaned


def clean_details(details: ProductDetails) -> ProductDetails:
    """Return the details with their texts cleaned.

    Raises:
        Rejected: as `clean_text`; `ATTRIBUTE_REPEATED`, `PICTURE_URL_INVALID`.
    """
    attributes = [
        Attribute(
            clean_text(f"details.attributes[{index}].name", attribute.name, is_required=True),
            clean_text(f"details.attributes[{index}].value", attribute.value, is_required=True),
        )
        for index, attribute in enumerate(details.attributes)
    ]
    names = [attribute.name for attribute in attributes]
    for name in names:
        if names.count(name) > 1:
            raise Rejected("ATTRIBUTE_REPEATED", name=name)
    for index, url in enumerate(details.picture_urls):
        if not _PICTURE_URL.fullmatch(url):
            raise Rejected("PICTURE_URL_INVALID", index=index, needs="https, a host name, and ASCII alone")
    return replace(
        details,
        title=clean_text("details.title", details.title),
        description=clean_text("details.description", details.description, has_lines=True),
        brand=clean_text("details.brand", details.brand),
        attributes=tuple(attributes),
    )
