"""The addresses of customers, with their texts cleaned."""

from command_server.contexts.customers.domain.messages import PostalAddress
from command_server.kernel.texts import clean_text


def clean_address(address: PostalAddress) -> PostalAddress:
    """Return an address with its texts cleaned.

    Raises:
        Rejected: as `clean_text`.
    """
    lines = enumerate(address.address_lines)
    return PostalAddress(
        clean_text("address.recipient", address.recipient, is_required=True),
        tuple(clean_text(f"address.address_lines[{index}]", line, is_required=True) for index, line in lines),
        clean_text("address.postal_code", address.postal_code),
        clean_text("address.locality", address.locality, is_required=True),
        address.region_code,
    )
