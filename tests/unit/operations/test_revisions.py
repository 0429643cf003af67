"""The chains of migrations are linear: two revisions with one number would leave no database migrated."""

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("process", ["command_server", "process_manager", "operations_server"])
@pytest.mark.filterwarnings("error")
def test_each_chain_has_one_head(process: str) -> None:
    chain = ScriptDirectory(str(ROOT / process / "postgres/migrations"))
    assert len(chain.get_heads()) == 1
    assert len(list(chain.walk_revisions())) == len(
        list((ROOT / process).glob("postgres/migrations/versions/*.py"))
    )
