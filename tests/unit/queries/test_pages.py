"""Pages as responses, and the field numbers that they rely on."""

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from contracts import page_tokens
from query_server.merged_history_pages import MergedPage
from query_server.pages import Page
from query_server.wire_format import check_numbers
from runtime.grpc.rpc_error import RpcError
from tests.support.harness.contexts import QUERY_CONTEXTS
from tests.support.ledger.stubs import queries, types

CHEQUES = [types.Cheque(cheque_id=f"c-{n}", version=n) for n in range(3)]


@pytest.mark.parametrize("last", ["", "member"])
def test_an_encoded_page_equals_the_serialised_response(last: str) -> None:
    token = page_tokens.mint("list", last) if last else ""
    page = Page.of("list", [cheque.SerializeToString() for cheque in CHEQUES], last)
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


@pytest.mark.parametrize("claimed", ["x", "[]", '{"c-1": "1"}', '{"c-1": 1.5}'])
def test_a_forged_token_of_merged_histories_is_refused(claimed: str) -> None:
    request = queries.GetChequeHistoryRequest(page_token=page_tokens.mint("list", claimed))
    with pytest.raises(RpcError) as error:
        MergedPage.of("list", request)
    assert error.value.reason == "PAGE_TOKEN_INVALID"


def test_a_token_of_merged_histories_names_their_versions() -> None:
    request = queries.GetChequeHistoryRequest(page_token=page_tokens.mint("list", '{"c-1": 3}'))
    assert MergedPage.of("list", request) == MergedPage("list", 20, {"c-1": 3})
    assert MergedPage.of("list", queries.GetChequeHistoryRequest(page_size=7)) == MergedPage("list", 7, None)
