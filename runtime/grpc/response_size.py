"""The size of responses: pages and batches end early enough for every gRPC client.

A gRPC client refuses a message of more than 4 MiB unless it is configured otherwise, and a call whose
response it refuses fails in every retry. So a page ends at a number of bytes, too.
"""

from runtime.grpc.rpc_error import RpcError

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
"""The default of gRPC clients."""
MAX_PAGE_BYTES = 3_000_000
"""Items per response. The rest of MAX_RESPONSE_BYTES is for other fields, and for a single larger item."""
FIRST_READ = 50
"""Items in the first read for a page. The later reads are planned by the sizes of the first items."""


class PageBudget:
    """The bytes that the items of one response may have in total. The first item always fits.

    Args:
        max_bytes: the maximum.
    """

    def __init__(self, max_bytes: int = MAX_PAGE_BYTES) -> None:
        self._remaining = max_bytes
        self._largest = 0

    def take(self, size: int) -> bool:
        """Add an item of this size; return False, without adding it, if it does not fit any more."""
        if size > self._remaining and self._largest:
            return False
        self._remaining -= size
        self._largest = max(self._largest, size, 1)
        return True

    def plan_read(self, wanted: int) -> int:
        """Return how many of the wanted items to read at once, so that few are read in vain."""
        expected = self._remaining // self._largest + 1 if self._largest else FIRST_READ
        return max(1, min(wanted, expected))


def check_response_size(response: bytes) -> bytes:
    """Return a serialised response.

    Raises:
        RpcError: `RESPONSE_TOO_LARGE`.
    """
    if len(response) > MAX_RESPONSE_BYTES:
        raise too_large_error(len(response))
    return response


def too_large_error(size: int) -> RpcError:
    facts = {"bytes": str(size), "most": str(MAX_RESPONSE_BYTES)}
    return RpcError("RESPONSE_TOO_LARGE", f"the response would have {size} bytes", facts)
