"""Pages as responses, and the field numbers that they rely on."""

from typing import Any

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from query_server.fresh_reader import FreshReader
from query_server.merged_history_pages import MergedPage
from query_server.pages import PagedList
from query_server.view_reader import ViewReader
from query_server.wire_format import check_numbers
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.contexts import QUERY_CONTEXTS
from tests.support.harness.freshness import make_freshness
from tests.support.harness.keys import TOKENS
from tests.support.ledger.stored_views import CHEQUE
from tests.support.ledger.stubs import queries, types

CHEQUES = [types.Cheque(cheque_id=f"c-{n}", version=n) for n in range(3)]


@pytest.mark.parametrize("last", ["", "member"])
def test_an_encoded_page_equals_the_serialised_response(last: str) -> None:
    request = queries.ListChequesRequest()
    token = TOKENS.mint_page_token(request, "list", last) if last else ""
    paged_list = PagedList(TOKENS, request, "list")
    page = paged_list.build_page([cheque.SerializeToString() for cheque in CHEQUES], last)
    expected = queries.ListChequesResponse(cheques=CHEQUES, next_page_token=token)
    assert page.encode() == expected.SerializeToString()


def make_service(*fields: tuple[str, int, bool]) -> ServiceDescriptor:
    """Return a service whose one response has these fields: the name, the number, and whether it repeats."""
    file = FileDescriptorProto(name="toy.proto", package="toy", syntax="proto3")
    file.message_type.add(name="View")
    response = file.message_type.add(name="ListResponse")
    for name, number, is_repeated in fields:
        label = FieldDescriptorProto.LABEL_REPEATED if is_repeated else FieldDescriptorProto.LABEL_OPTIONAL
        field = response.field.add(
            name=name, number=number, label=label, type=FieldDescriptorProto.TYPE_STRING
        )
        if not name.endswith("token"):
            field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, ".toy.View"
    service = file.service.add(name="QueryService")
    service.method.add(name="List", input_type=".toy.View", output_type=".toy.ListResponse")
    pool = DescriptorPool()
    pool.Add(file)
    return pool.FindServiceByName("toy.QueryService")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([("views", 3, True), ("next_page_token", 2, False)], "field 1 of a response with next_page_token"),
        ([("views", 1, False), ("next_page_token", 2, False)], "must be a repeated message"),
        ([("views", 1, True), ("next_page_token", 4, False)], "next_page_token must be field 2"),
        (
            [("views", 1, True), ("resume_token", 2, False)],
            "field 1 of a response with resume_token must be a message",
        ),
        ([("view", 1, False), ("resume_token", 3, False)], "resume_token must be field 2"),
    ],
)
def test_a_response_with_other_numbers_is_refused(fields: list[tuple[str, int, bool]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_numbers(make_service(*fields))


def test_the_responses_of_all_contexts_have_these_numbers() -> None:
    check_numbers(make_service(("views", 1, True), ("next_page_token", 2, False)))
    for context in QUERY_CONTEXTS:
        check_numbers(context.service)


def merged_page(last: str, page_size: int = 0) -> MergedPage:
    request = queries.GetChequeHistoryRequest(page_size=page_size)
    request.page_token = TOKENS.mint_page_token(request, "list", last) if last else ""
    without_redis: Any = None
    views = ViewReader(without_redis, CHEQUE)
    return MergedPage.of(FreshReader(views, make_freshness(views)), "list", request)


@pytest.mark.parametrize("last", ["x", "[]", '{"c-1": "1"}', '{"c-1": 1.5}'])
def test_a_token_of_merged_histories_without_versions_is_refused(last: str) -> None:
    with pytest.raises(RpcError) as error:
        merged_page(last)
    assert error.value.reason == "PAGE_TOKEN_INVALID"


def test_a_token_of_merged_histories_names_their_versions() -> None:
    page, first_page = merged_page('{"c-1": 3}'), merged_page("", page_size=7)
    assert (page.size, page.first_versions) == (20, {"c-1": 3})
    assert (first_page.size, first_page.first_versions) == (7, None)
