"""`generated/` is what the protos say, the stubs are typed, and a forgotten `make generate` is noticed."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
IMPORTED = ".cache/protos/.ready"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    subprocess.run(["make", "-C", str(ROOT), IMPORTED], check=True, capture_output=True)
    for name in ("protos", "generated", "stubs", ".cache/protos"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    return tmp_path


def matches(clone: Path) -> bool:
    command = ["make", "-C", str(clone), "-o", IMPORTED, "generated-matches"]  # -o: it is there already
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0 or "run make generate" in result.stdout, result.stdout + result.stderr
    return result.returncode == 0


def test_the_stubs_are_those_of_the_protos(clone: Path) -> None:
    assert matches(clone)


def test_a_proto_that_changed_without_make_generate_is_noticed(clone: Path) -> None:
    proto = clone / "protos/diptych/ordering/v1/types.proto"
    proto.write_text(proto.read_text().replace("string cancel_reason = 13", "string cancel_why = 13"))
    assert not matches(clone)


def test_a_stub_that_was_edited_by_hand_is_noticed(clone: Path) -> None:
    stub = clone / "generated/diptych/ordering/v1/types_pb2.py"
    stub.write_text(stub.read_text() + "# edited\n")
    assert not matches(clone)
