"""The views of banking, one file per view."""

from projector.projections.banking import account, account_ledger, hold, transfer, withdrawal

PROJECTIONS = (
    account.ACCOUNTS,
    account_ledger.LEDGERS,
    hold.HOLDS,
    transfer.TRANSFERS,
    withdrawal.WITHDRAWALS,
)
