"""The committed JSON of the dashboards is what their code writes."""

import json
from pathlib import Path

import pytest

from deploy.observability.dashboards.__main__ import render

FILES = render()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_json_is_that_of_the_code(path: Path) -> None:
    assert path.read_text() == FILES[path], "run make dashboards"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_have_names_and_places_of_their_own(path: Path) -> None:
    panels = [panel for panel in json.loads(FILES[path])["panels"] if panel["type"] != "row"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
