"""Queries of banking: accounts, holds and transfers by their ids."""

from typing import Any

from diptych.banking.v1 import query_service_pb2 as protocol
from diptych.banking.v1.types_pb2 import Account, Hold, Transfer

from query_server import freshness
from query_server.framing import field
from query_server.service import Answer, Query, QueryContext
from query_server.views import ViewReader
from runtime.errors import Refusal
from runtime.views import View


def one(name: str) -> Answer:
    """Return what answers with one view, which the field of this name of the response holds."""

    async def answer(views: ViewReader, request: Any, remaining: float | None) -> bytes:
        id_ = getattr(request, f"{name}_id")
        if token := request.at_least_as_fresh:
            read = views.data_of(id_)
            (data,) = await freshness.read(views, token, read, own=id_, remaining=remaining)
        else:
            data = await views.get(id_)
        if not data:
            raise Refusal.of_rule("banking", f"{name.upper()}_NOT_FOUND", {f"{name}_id": id_}, "missing")
        return field(1, data)

    return answer


CONTEXT = QueryContext(
    protocol.DESCRIPTOR.services_by_name["QueryService"],
    {
        "GetAccount": Query(View.of(Account), one("account")),
        "GetHold": Query(View.of(Hold), one("hold")),
        "GetTransfer": Query(View.of(Transfer), one("transfer")),
    },
)
