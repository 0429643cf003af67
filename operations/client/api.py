"""Calls to the operations server."""

from collections.abc import Iterator
from typing import Any, Self, TypeVar

import grpc
from diptych.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

from operations.client.errors import describe_error
from operations.client.target import Target, read_target

STATUS_TIMEOUT = 1.9
"""Seconds for GetStatus, which answers within them whatever is unreachable."""
TIMEOUT = 10.0
"""Seconds for any other call: a page takes less than one, the rest is for a machine that has no time."""
MAX_PAGE_SIZE = 200
OPTIONS = (("grpc.enable_retries", 0),)

Request = TypeVar("Request")
Response = TypeVar("Response")


class OperationsApi:
    """The methods of the operations server, called with the operator's token.

    Attributes:
        stub: has the methods for `call` and its siblings.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._metadata = (("authorization", f"Bearer {target.token}"),)
        self._channel = (
            grpc.secure_channel(target.address, target.credentials, OPTIONS)
            if target.credentials
            else grpc.insecure_channel(target.address, OPTIONS)
        )
        self.stub = OperationsServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Request, Response]",
        request: Request,
        *,
        timeout: float = TIMEOUT,
        is_act: bool = False,
    ) -> Response:
        """Return the response to a request.

        Raises:
            StartError: the server refuses it, or cannot be asked (`NotAsked`).
        """
        try:
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise describe_error(error, self._target.address, timeout, is_act) from error

    def list_pages(
        self, method: "grpc.UnaryUnaryMultiCallable[Any, Any]", request: Any, limit: int
    ) -> Iterator[Any]:
        """Yield the responses of a list, page by page, until they have `limit` entries; 0 for all.

        The last response may have more entries than that; it has a page token if there are more.

        Args:
            method: of a list.
            request: for its first page; its size and token are set here.
            limit: the number of entries to read.

        Raises:
            StartError: as `call`.
        """
        entries = 0
        while True:
            request.page_size = min(limit - entries, MAX_PAGE_SIZE) if limit else MAX_PAGE_SIZE
            response = self.call(method, request)
            yield response
            request.page_token = response.next_page_token
            entries += count_entries(response)
            if not request.page_token or (limit and entries >= limit):
                return

    def follow(
        self,
        method: "grpc.UnaryStreamMultiCallable[Request, Response]",
        request: Request,
        *,
        is_act: bool = False,
    ) -> Iterator[Response]:
        """Yield the responses of a stream until the server ends it.

        Raises:
            StartError: as `call`.
        """
        try:
            yield from method(request, metadata=self._metadata)
        except grpc.RpcError as error:
            raise describe_error(error, self._target.address, None, is_act) from error


def list_entries(response: Any) -> Any:
    """Return the entries of a page: its one repeated field."""
    (field,) = (field for field in response.DESCRIPTOR.fields if field.is_repeated)
    return getattr(response, field.name)


def count_entries(response: Any) -> int:
    return len(list_entries(response))


def open_api() -> OperationsApi:
    """Return the methods of the server that the settings name.

    Raises:
        InvalidSetting: a setting is malformed.
    """
    return OperationsApi(read_target())
