"""Each fault that can be planted into the event store is found and named."""

import pytest

from tests.support.harness.verified_system import System


async def test_a_gap_in_versions(system: System) -> None:
    await system.sql("DELETE FROM events WHERE stream = 'ordering.order.o-2' AND version = 2")
    found = await system.found()
    assert "stream ordering.order.o-2: version 2 of 3 is missing" in found
    assert any("its receipt names ordering.order.o-2@2, which does not exist" in line for line in found)
    assert any(line.startswith("outbox ") and "no event at this position" in line for line in found)
    assert any(line.startswith("message ") and "PostgreSQL has no event" in line for line in found)


async def test_a_version_of_a_stream_that_is_not_its_last_events(system: System) -> None:
    await system.sql("UPDATE streams SET version = 4 WHERE id = 'ordering.order.o-2'")
    assert await system.found() == [
        "stream ordering.order.o-2: streams.version is 4, its last event has version 3"
    ]


async def test_a_stream_without_events_and_events_without_a_stream(system: System) -> None:
    await system.sql("UPDATE streams SET id = 'ordering.order.o-9' WHERE id = 'ordering.order.o-5'")
    assert await system.found() == [
        "stream ordering.order.o-5: it has events, but no row in streams",
        "stream ordering.order.o-9: it has a row in streams, but no events",
    ]


async def test_an_event_recorded_before_the_one_before_it(system: System) -> None:
    await system.sql(
        "UPDATE events SET recorded_at = '2020-01-01Z' WHERE stream = 'ordering.order.o-2' AND version = 2"
    )
    found = await system.found()
    assert any(
        line.startswith("stream ordering.order.o-2: version 2 was recorded at 2020-01-01") for line in found
    )
    assert any(line.startswith("event ordering.order.o-2@2: message ") for line in found)


async def test_an_event_whose_bytes_are_not_its_message(system: System) -> None:
    await system.sql(r"UPDATE events SET data = '\xff' WHERE stream = 'ordering.order.o-5'")
    assert (
        "event ordering.order.o-5@1: its bytes are no diptych.ordering.v2.OrderPlaced" in await system.found()
    )


async def test_an_event_of_an_unknown_type(system: System) -> None:
    await system.sql("UPDATE events SET type = 'a.v1.B' WHERE stream = 'ordering.order.o-5'")
    assert "event ordering.order.o-5@1: a.v1.B is no event of its context" in await system.found()


async def test_events_that_do_not_belong_together(system: System) -> None:
    await system.sql(
        "UPDATE events SET type = 'diptych.ordering.v1.OrderPlaced', data = '' "
        "WHERE stream = 'ordering.order.o-2' AND version = 2"
    )
    found = await system.found()
    assert any(line.startswith("event ordering.order.o-2@2: it cannot be folded: ") for line in found)


async def test_a_receipt_of_a_version_that_does_not_exist(system: System) -> None:
    await system.sql(
        """UPDATE requests SET receipt = '{"ordering.order.o-5": 2}' WHERE stream LIKE '%.o-5'"""
    )
    (found,) = await system.found()
    assert found.startswith("request ")
    assert found.endswith("its receipt names ordering.order.o-5@2, which does not exist")


async def test_a_row_of_the_outbox_without_an_event(system: System) -> None:
    await system.sql("INSERT INTO outbox (position) VALUES (1000)")
    assert await system.found() == ["outbox 1000: there is no event at this position"]


async def test_cleaned_up_rows_of_the_outbox_are_no_fault(system: System) -> None:
    await system.sql("DELETE FROM outbox")
    assert await system.found() == []


# Snapshots.


async def test_a_snapshot_of_another_fold(system: System) -> None:
    await system.sql(
        "UPDATE streams SET state = jsonb_set(state::jsonb, '{status}', '\"SHIPPED\"')::json "
        "WHERE id LIKE '%.o-2'"
    )
    assert await system.found() == [
        'snapshot of ordering.order.o-2: status is "SHIPPED", the fold says "CANCELLED" at version 3'
    ]


async def test_a_snapshot_with_another_line(system: System) -> None:
    await system.sql(
        "UPDATE streams SET state = jsonb_set(state::jsonb, "
        "'{contents,groups,0,lines,0,quantity}', '7')::json WHERE id LIKE '%.o-1'"
    )
    (found,) = await system.found()
    assert found.startswith("snapshot of ordering.order.o-1: contents is ")


@pytest.mark.parametrize("state", ["[]", '"PLACED"'])
async def test_a_snapshot_of_another_form(system: System, state: str) -> None:
    await system.sql(f"UPDATE streams SET state = '{state}' WHERE id LIKE '%.o-2'")
    assert await system.found() == ["snapshot of ordering.order.o-2: it is no JSON object"]


async def test_a_snapshot_ahead_of_its_stream(system: System) -> None:
    await system.sql("UPDATE streams SET state_version = 4 WHERE id LIKE '%.o-2'")
    assert await system.found() == ["snapshot of ordering.order.o-2: it is at version 4 of 3"]


async def test_a_snapshot_that_lags_is_compared_at_its_own_version(system: System) -> None:
    placed = "(SELECT state FROM streams WHERE id LIKE '%.o-5')"
    await system.sql(f"UPDATE streams SET state = {placed}, state_version = 1 WHERE id LIKE '%.o-2'")
    (found,) = await system.found()
    assert found.startswith('snapshot of ordering.order.o-2: customer_id is "bob", the fold says "ada"')


async def test_snapshots_of_other_code_are_passed_over_and_counted(system: System) -> None:
    await system.sql("UPDATE streams SET state = '{}', fingerprint = 'old' WHERE id LIKE '%.o-2'")
    report = await system.verify()
    assert report.clean
    assert (report.counted["snapshots"], report.counted["skipped"]) == (4, 1)
