"""The `diptych` command line against a running stack."""

import json
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from redis.asyncio import Redis

from devstack.stack import Stack
from devstack.tcp_ports import free_port
from operations import projections
from tests.support.harness.command_line import diptych
from tests.support.ledger.clerk import Clerk, cheque_of
from tests.support.ledger.installation import installed
from tests.support.ledger.projections import CHEQUE

IN_PLACE = ("--in-place", "--reason", "a test")


def list_names(stack: Stack) -> list[str]:
    """Return the names of all projections."""
    return [view.projection for view in projections.list_views(stack.settings)]


@pytest.fixture(autouse=True)
def ledger() -> Iterator[None]:
    with installed(contexts=""):
        yield


async def test_a_token_has_subject_scopes_and_expiry(stack: Stack) -> None:
    code, out, _ = await diptych(
        stack,
        *("token", "--scope", "a.read", "--scope", "a.write", "--subject", "bob", "--ttl", "90s"),
        program="devstack",
    )
    claims = jwt.decode(out.strip(), options={"verify_signature": False})
    assert code == 0
    assert (claims["sub"], claims["scope"]) == ("bob", "a.read a.write")
    assert claims["exp"] - claims["iat"] == 90


async def test_a_token_without_keys_is_one_line(stack: Stack, tmp_path: Path) -> None:
    code, out, err = await diptych(
        stack, "token", program="devstack", DIPTYCH_JWKS=str(tmp_path / "jwks.json")
    )
    assert (code, out) == (1, "")
    assert err == f"Error: there is no signing key in {tmp_path}/private-key.pem; `make up` creates one\n"


async def test_the_events_of_a_stream_are_shown_decoded(stack: Stack, clerk: Clerk) -> None:
    receipt = await clerk.write(cheque_of("ada"))
    await clerk.void(receipt.aggregate_id)
    code, out, _ = await diptych(stack, "events", f"ledger.cheque.{receipt.aggregate_id}", "--json")
    written, voided = map(json.loads, out.splitlines())
    assert code == 0
    assert (written["type"], written["version"]) == ("acme.ledger.v2.ChequeWritten", 1)
    assert (written["data"]["amount"], written["data"]["currency_code"]) == ("999", "EUR")
    assert written["actor"] == "alice"
    assert voided["data"]["reason"] == "changed my mind"
    name = f"ledger.cheque.{receipt.aggregate_id}"
    code, out, _ = await diptych(stack, "events", name, "--content", "none", "--json")
    assert (code, [json.loads(line)["data"] for line in out.splitlines()]) == (0, [None, None])
    for arguments in (("events", name), ("state", name)):
        code, out, err = await diptych(stack, *arguments, "--content", "full")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("Error: SCOPE_MISSING: the token lacks the scope operations.personal; ")


async def test_an_unknown_stream_is_one_line(stack: Stack) -> None:
    code, out, err = await diptych(stack, "state", "ledger.cheque.nobody")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: STREAM_NOT_FOUND: ")
    assert await diptych(stack, "events", "ledger.cheque.nobody") == (
        0,
        "no events of ledger.cheque.nobody\n",
        "",
    )


async def test_a_projection_is_rebuilt_in_place(stack: Stack, clerk: Clerk) -> None:
    receipt = await clerk.write(cheque_of("rebuilt"))
    before = await clerk.get(receipt.aggregate_id, receipt.consistency_token)
    async with Redis.from_url(stack.settings.redis_url) as redis:  # only a rebuild repairs this
        await redis.delete(CHEQUE.key(receipt.aggregate_id), CHEQUE.index("account", "rebuilt"))
    code, out, err = await diptych(stack, "projections", "rebuild", "ledger.cheque", *IN_PLACE)
    assert (code, err) == (0, "")
    assert out.startswith("ledger.cheque is ready again after ")
    assert await clerk.get(receipt.aggregate_id) == before
    assert await clerk.list(account_id="rebuilt") == [before]


async def test_an_unknown_projection_is_one_line(stack: Stack) -> None:
    why = ("--reason", "a test")
    code, _, err = await diptych(stack, "projections", "retry", "ledger.cheque", "c-404", *why)
    assert (code, err.count("\n"), "c-404" in err) == (1, 1, True)
    code, out, err = await diptych(stack, "projections", "retry", "ledger.cheque", *why)
    assert (code, out, err) == (0, "0 aggregates of ledger.cheque are retried within seconds\n", "")
    for arguments in (("projections", "retry", "ledger.cheuqe", *why), ("lag", "ledger.cheuqe")):
        code, _, err = await diptych(stack, *arguments)
        assert (code, err.startswith("Error: PROJECTION_UNKNOWN: ")) == (1, True), err
    code, _, err = await diptych(stack, "projections", "rebuild", "ledger.cheuqe", *IN_PLACE)
    known = ", ".join(list_names(stack))
    assert (code, err) == (1, f"Error: there is no projection ledger.cheuqe; there is {known}\n")


@pytest.mark.parametrize(
    "command", ["migrate", "sagas callers", "projections rebuild ledger.cheque --in-place --reason test"]
)
async def test_an_unreachable_server_is_one_line(stack: Stack, command: str) -> None:
    code, out, err = await diptych(
        stack,
        *command.split(),
        DIPTYCH_DATABASE_URL=f"postgresql://diptych@127.0.0.1:{free_port()}/diptych",
        DIPTYCH_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0",
    )
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


async def test_migrating_twice_changes_nothing(stack: Stack) -> None:
    assert await diptych(stack, "migrate") == (0, "the database is at the newest revision\n", "")
