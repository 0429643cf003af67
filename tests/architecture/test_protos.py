"""Every proto, of the repository and of a new context, names its packages in Go and Java after its own."""

import re
from pathlib import Path

import pytest

from operations.new_context.files import INSIDE
from operations.new_context.naming import Names

ROOT = Path(__file__).parents[2]
PROTOS = {str(path.relative_to(ROOT)): path.read_text() for path in ROOT.glob("protos/**/*.proto")}
NEW = {
    path: text
    for path, text in INSIDE.render(Names("gift_cards", "gift_card")).items()
    if path.endswith(".proto")
}


@pytest.mark.parametrize("path", sorted(PROTOS | NEW))
def test_a_proto_names_its_go_and_java_packages(path: str) -> None:
    _, root, context, version, _ = path.split("/")
    options = dict(re.findall(r"^option (\w+) = (.*);$", (PROTOS | NEW)[path], re.MULTILINE))
    assert options == {
        "go_package": f'"diptych.internal/stubs/{context}/{version};{context}{version}"',
        "java_multiple_files": "true",
        "java_package": f'"{root}.{context}.{version}"',
    }
