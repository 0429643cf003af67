"""The views of banking, a file for each."""

from projector.projections.banking import account, account_ledger, hold, transfer

PROJECTIONS = (account.ACCOUNTS, account_ledger.LEDGERS, hold.HOLDS, transfer.TRANSFERS)
