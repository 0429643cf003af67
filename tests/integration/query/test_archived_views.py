"""Answers about archived views and histories: they exist, and every answer says so."""

from typing import Any

import pytest
from grpc import StatusCode

from runtime.grpc.rpc_error import RpcError
from tests.integration.query.test_history import get_history, make_entries
from tests.support.harness.keys import mint_token
from tests.support.harness.read_model import INCARNATION, ReadModel, respond
from tests.support.ledger import queries as ledger
from tests.support.ledger.stored_views import cheque
from tests.support.ledger.stubs import queries

FACTS = {"cheque_id": "c-1", "version": "3", "archive_time": "2026-01-02T03:04:05.678Z"}


async def get(model: ReadModel, token: str = "") -> Any:
    request = queries.GetChequeRequest(cheque_id="c-1", at_least_as_fresh=token)
    return await respond(ledger.get_cheque, model.views, request, 0.2)


async def batch_get(model: ReadModel, token: str = "", *ids: str) -> Any:
    request = queries.BatchGetChequesRequest(cheque_ids=ids, at_least_as_fresh=token)
    data = await respond(ledger.batch_get_cheques, model.views, request, 0.2)
    return queries.BatchGetChequesResponse.FromString(data)


def mint(version: int) -> str:
    return mint_token(INCARNATION, {"ledger.cheque.c-1": version})


@pytest.mark.parametrize("version", [0, 2, 3])
async def test_an_archived_view_satisfies_tokens_up_to_its_version(model: ReadModel, version: int) -> None:
    await model.put_tombstone("c-1", 3)
    with pytest.raises(RpcError) as error:
        await get(model, mint(version) if version else "")
    assert (error.value.code, error.value.reason) == (StatusCode.NOT_FOUND, "VIEW_ARCHIVED")
    assert error.value.metadata == FACTS


async def test_a_token_beyond_the_tombstone_waits(model: ReadModel) -> None:
    await model.put_tombstone("c-1", 3)
    with pytest.raises(RpcError) as error:
        await get(model, mint(4))
    assert error.value.reason == "VIEW_BEHIND"


async def test_a_batch_names_archived_views_apart(model: ReadModel) -> None:
    await model.put(cheque("c-2"))
    await model.put_tombstone("c-1", 3)
    for token in ("", mint(3)):
        response = await batch_get(model, token, "c-3", "c-1", "c-2")
        assert [view.cheque_id for view in response.cheques] == ["c-2"]
        assert (response.missing_cheque_ids, response.archived_cheque_ids) == (["c-3"], ["c-1"])


async def test_an_archived_view_is_unknown_while_the_projection_is_built(model: ReadModel) -> None:
    await model.put_tombstone("c-1", 3)
    await model.mark_rebuilding()
    with pytest.raises(RpcError) as error:
        await get(model)
    assert error.value.reason == "VIEW_REBUILDING"


async def test_lists_omit_archived_views(model: ReadModel) -> None:
    await model.put(cheque("c-1"), cheque("c-2", written=5))
    await model.put_tombstone("c-1", 3)  # its entries in the indexes may be read before they go
    request = queries.ListChequesRequest(account_id="a-1")
    page = queries.ListChequesResponse.FromString(await respond(ledger.list_cheques, model.views, request))
    assert [view.cheque_id for view in page.cheques] == ["c-2"]


async def test_an_archived_history_is_named_as_such(model: ReadModel) -> None:
    await model.put_tombstone("c-1", 3)
    with pytest.raises(RpcError) as error:
        await get_history(model)
    assert (error.value.reason, error.value.metadata) == ("VIEW_ARCHIVED", FACTS)


async def test_pages_end_where_the_archived_entries_begin(model: ReadModel) -> None:
    await model.put_history("c-1", *make_entries(7))
    before = await get_history(model, page_size=2)
    assert before.archived_before_version == 0
    await model.archive_entries("c-1", 5)
    first = await get_history(model, page_size=2)
    assert [entry.version for entry in first.entries] == [7, 6]
    last = await get_history(model, page_size=2, page_token=first.next_page_token)
    assert [entry.version for entry in last.entries] == [5]
    assert (last.next_page_token, last.archived_before_version) == ("", 5)
    assert first.archived_before_version == 5


async def test_a_page_token_from_before_the_removal_ends_there_too(model: ReadModel) -> None:
    await model.put_history("c-1", *make_entries(7))
    token = (await get_history(model, page_size=3)).next_page_token  # of version 5
    await model.archive_entries("c-1", 6)
    page = await get_history(model, page_token=token)
    assert (list(page.entries), page.next_page_token, page.archived_before_version) == ([], "", 6)
