"""What docs/clients.md claims about addresses, access tokens, methods and versions is true."""

import re
from pathlib import Path

import pytest
from diptych.inventory.v1 import types_pb2 as inventory

from runtime.grpc.authentication import TokenVerifier
from runtime.grpc.jwks import KeySet
from runtime.grpc.unauthenticated import Unauthenticated
from runtime.process.settings import Settings
from tests.support.builders.reasons import ROOT
from tests.support.harness.callers import AUDIENCE, ISSUER, Issuer

PAGE = (ROOT / "docs/clients.md").read_text()
PROTOS = "\n".join(path.read_text() for path in (ROOT / "protos/diptych").rglob("*.proto"))


def read_table(heading: str) -> list[list[str]]:
    """Return the cells of the rows below the first column's heading."""
    table = PAGE.split(f"\n| {heading} |")[1].split("\n\n")[0]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_addresses_are_the_defaults_of_their_settings() -> None:
    rows = read_table("services")
    assert len(rows) == 3
    for _, _, setting, address in rows:
        field = setting.removeprefix("DIPTYCH_").lower()
        assert Settings.model_fields[field].default == address


REQUIRED = [row[0].split("`")[0] for row in read_table("part") if row[1] == "yes"]


@pytest.mark.parametrize("part", REQUIRED)
async def test_a_token_without_a_required_part_is_refused(tmp_path: Path, part: str) -> None:
    issuer = Issuer(tmp_path / "jwks.json")
    tokens = TokenVerifier(KeySet(str(issuer.path)), ISSUER, AUDIENCE)
    assert (await tokens.identify(issuer.token(without=("scope",)))).caller.subject == "alice"
    token = issuer.token(key_id="another") if part == "kid" else issuer.token(without=(part,))
    with pytest.raises(Unauthenticated):
        await tokens.identify(token)


def test_all_required_parts_are_listed() -> None:
    assert set(REQUIRED) == {"kid", "iss", "aud", "exp", "iat", "sub"}


def test_the_methods_and_settings_that_the_page_names_exist() -> None:
    methods = set(re.findall(r"rpc (\w+)\(", PROTOS))
    named = set(re.findall(r"`([A-Z][a-z]+[A-Z]\w*)`", PAGE))
    others = set(re.findall(r"(?:message|service) (\w+) ", PROTOS))
    library = {"Rejection", "OutcomeUnknown", "RetryInfo", "ErrorInfo", "BadRequest"}
    assert named - methods - others - library == set()
    settings = {f"DIPTYCH_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"`(DIPTYCH_\w+)`", PAGE)) <= settings


def test_an_alert_has_no_version() -> None:
    assert {"state", "raise_time", "clear_time"} <= set(inventory.ReorderAlert.DESCRIPTOR.fields_by_name)
    assert "version" not in inventory.ReorderAlert.DESCRIPTOR.fields_by_name
