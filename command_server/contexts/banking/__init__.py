"""Banking: accounts, holds on their money, transfers between them, withdrawals and refunds."""

from diptych.banking.v1 import command_service_pb2

from command_server.contexts.banking.domain import (
    account_commands,
    account_opening,
    case,
    hold,
    listed_name,
    mandate,
    overdraft,
    refund,
    transfer,
    withdrawal,
)
from command_server.contexts.banking.hidden_texts import normalize_text
from command_server.kernel.context import Context
from command_server.kernel.unique_values import UniqueValues
from contracts.events.banking import EVENTS

CONTEXT = Context(
    "banking",
    commands=(command_service_pb2,),
    events=EVENTS,
    deciders=(
        account_opening.OPEN_DECIDER,
        account_opening.DEPOSIT_DECIDER,
        account_commands.DECIDER,
        withdrawal.WITHDRAW_DECIDER,
        withdrawal.DECIDER,
        hold.DECIDER,
        mandate.GRANT_DECIDER,
        mandate.DECIDER,
        transfer.DECIDER,
        refund.DECIDER,
        overdraft.CHANGE_DECIDER,
        overdraft.DECIDER,
        case.DECIDER,
        listed_name.DECIDER,
    ),
    unique_values=UniqueValues("banking", normalize_text),
)
