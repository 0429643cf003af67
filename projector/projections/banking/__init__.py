"""The views of banking, one file per view."""

from projector.projections.banking import account, account_ledger, hold, mandate, transfer, withdrawal

PROJECTIONS = (
    account.ACCOUNTS,
    account_ledger.LEDGERS,
    hold.HOLDS,
    mandate.MANDATES,
    transfer.TRANSFERS,
    withdrawal.WITHDRAWALS,
)
