"""The views of banking, one file per view."""

from projector.projections.banking import (
    account,
    account_ledger,
    case,
    hold,
    mandate,
    overdraft,
    transfer,
    withdrawal,
)

PROJECTIONS = (
    account.ACCOUNTS,
    account_ledger.LEDGERS,
    case.CASES,
    hold.HOLDS,
    mandate.MANDATES,
    overdraft.OVERDRAFTS,
    transfer.TRANSFERS,
    withdrawal.WITHDRAWALS,
)
