"""The ledger as an installed distribution, for processes and, within `installed`, for this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.ledger import stubs

CONTEXT = "ledger"
DISTRIBUTION = Path(__file__).parent / "distribution"
"""The folder with the distribution's metadata, where its entry point is found."""
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(map(str, (DISTRIBUTION, stubs.FOLDER, Path(__file__).parents[3]))),
    "DIPTYCH_CONTEXTS": CONTEXT,
}
"""Variables with which the processes of Diptych run the ledger alone."""


@contextmanager
def installed(contexts: str = CONTEXT) -> Iterator[None]:
    """Install the ledger for this process and the processes that it starts.

    Args:
        contexts: the contexts that they run; empty for all.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DISTRIBUTION)
        for name, value in (ENVIRONMENT | {"DIPTYCH_CONTEXTS": contexts}).items():
            patch.setenv(name, value)
        yield
