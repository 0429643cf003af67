"""A client of Diptych's services, for threads; `diptych_client.aio` is the same for asyncio.

`connect` returns a `Connection`, which sends commands, queries and watches through the stubs of the package
diptych-stubs. Everything that can go wrong is a `Rejection` or an `OutcomeUnknown`.
"""

from diptych_client.connection import Connection, connect
from diptych_client.errors import OutcomeUnknown, Rejection
from diptych_client.proofs import InvalidProof, verify_event_proof
from diptych_client.request_ids import new_request_id
from diptych_client.retry_budget import RetryBudget
from diptych_client.service_config import service_config
from diptych_client.session import Fresh
from diptych_client.watch import Watch

__all__ = [
    "Connection",
    "Fresh",
    "InvalidProof",
    "OutcomeUnknown",
    "Rejection",
    "RetryBudget",
    "Watch",
    "connect",
    "new_request_id",
    "service_config",
    "verify_event_proof",
]
