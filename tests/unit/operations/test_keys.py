"""`diptych keys`: a ring is created, listed, checked and rotated in its file."""

import json
import stat
from base64 import urlsafe_b64encode
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from contracts.key_ring import KeyRing, Purpose
from operations import cli, keys
from runtime.process.start_error import StartError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.json"
    monkeypatch.setenv("DIPTYCH_KEYS", str(path))
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["keys", *arguments])


def test_a_new_ring_has_a_key_for_each_purpose_and_is_private(path: Path) -> None:
    keys.ensure(path)
    keys.ensure(path)
    assert len(json.loads(path.read_text())["keys"]) == len(Purpose)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    result = run("check")
    assert (result.exit_code, result.output) == (
        0,
        f"{path}: {len(Purpose)} keys, one to sign with for each purpose\n",
    )


def test_a_key_is_rotated(path: Path) -> None:
    keys.ensure(path)
    keys_before = KeyRing.parse(path.read_bytes()).keys.values()
    (old,) = [key.id for key in keys_before if key.purpose == "page-tokens"]
    new = run("new", "--purpose", "page-tokens", "--after", "1h").output.strip()
    ring = KeyRing.parse(path.read_bytes())
    begin = ring.keys[new].begins_at
    signing = [ring.find_signing_key(Purpose.PAGE_TOKENS, begin + seconds).id for seconds in (-1, 0)]
    assert signing == [old, new]
    assert "not changed: no active key for page-tokens before" in run("set", old, "verify-only").output
    keys.set_state(path, new, "revoked")
    newest = keys.create(path, "page-tokens", after=-timedelta(seconds=1))
    assert run("set", old, "verify-only").output == f"{old} is verify-only\n"
    states = {line.split()[0]: line.split()[3] for line in run("list").output.splitlines()[1:]}
    assert (states[old], states[new], states[newest]) == ("verify-only", "revoked", "active")


def test_secrets_are_random_and_not_listed(path: Path) -> None:
    keys.ensure(path)
    secrets = [key["secret"] for key in json.loads(path.read_text())["keys"]]
    assert len(set(secrets)) == len(secrets)
    assert not any(secret in run("list").output for secret in secrets)


def test_a_change_keeps_mode_and_what_it_does_not_know(path: Path) -> None:
    keys.ensure(path)
    content = json.loads(path.read_text())
    content["keys"].append(content["keys"][0] | {"id": "later", "purpose": "seals", "note": "mine"})
    path.write_text(json.dumps(content))
    path.chmod(0o640)
    keys.create(path, "page-tokens")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert json.loads(path.read_text())["keys"][3] == content["keys"][3]
    output = run("check").output
    assert "warning: unknown purpose seals" in output
    assert f"warning: {path} is open to others (-rw-r-----)" in output


@pytest.mark.parametrize("arguments", [("list",), ("check",), ("set", "k", "revoked")])
def test_a_file_that_is_no_ring_is_reported_in_one_line(path: Path, arguments: tuple[str, ...]) -> None:
    for content in (None, "{}"):
        if content:
            path.write_text(content)
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.output.startswith(f"Error: DIPTYCH_KEYS={path}: ")
        assert result.output.count("\n") == 1


def test_an_unknown_key_is_reported(path: Path) -> None:
    keys.ensure(path)
    with pytest.raises(StartError, match="there is no key nobody"):
        keys.set_state(path, "nobody", "revoked")


def test_check_fails_without_a_key_to_sign_with(path: Path) -> None:
    keys.create(path, "page-tokens")
    result = run("check")
    assert (result.exit_code, result.output) == (
        2,
        f"Error: DIPTYCH_KEYS={path}: no active key for consistency-tokens\n",
    )


def test_public_keys_are_listed_but_for_those_of_revoked_keys(path: Path) -> None:
    keys.ensure(path)
    (first,) = keys.read_public_keys(path).items()
    assert run("public").output == f"{first[0]} {urlsafe_b64encode(first[1]).decode()}\n"
    listed = {entry["id"]: entry for entry in map(json.loads, run("list", "--json").output.splitlines())}
    assert [id_ for id_, entry in listed.items() if "public_key" in entry] == [first[0]]
    second = keys.create(path, "seal", after=-timedelta(seconds=1))
    assert set(keys.read_public_keys(path)) == {first[0], second}
    keys.set_state(path, first[0], "revoked")
    assert set(keys.read_public_keys(path)) == {second}


def test_a_key_gets_no_algorithm_of_another_purpose(path: Path) -> None:
    result = run("new", "--purpose", "seal", "--algorithm", "BLAKE2b-128")
    assert result.exit_code == 2
    assert "--algorithm: of seal is Ed25519" in result.output
    assert not path.exists()
