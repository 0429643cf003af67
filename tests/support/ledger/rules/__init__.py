"""The ledger's commands and their rules."""

from command_server.kernel.context import Context
from tests.support.ledger.events import EVENTS
from tests.support.ledger.rules.account import ACCOUNTS
from tests.support.ledger.rules.cheque import CHEQUES
from tests.support.ledger.rules.upcasters import REQUEST_UPCASTERS
from tests.support.ledger.stubs import commands, commands_v2

CONTEXT = Context(
    "ledger",
    commands=(commands, commands_v2),
    events=EVENTS,
    deciders=(ACCOUNTS, CHEQUES),
    request_upcasters=REQUEST_UPCASTERS,
)
