"""The details of products, with their texts cleaned."""

import re
from dataclasses import replace

from command_server.contexts.catalogue.domain.messages import Attribute, ProductDetails
from command_server.kernel.decider import Rejected
from command_server.kernel.texts import clean_text

_PICTURE_URL = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[!-~]*)?")


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
        description=clean_text("details.description", details.description, permitted="\n"),
        brand=clean_text("details.brand", details.brand),
        attributes=tuple(attributes),
    )
