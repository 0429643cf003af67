"""The projections of customers, one module each."""

from projector.projections.customers import customer, email_claim

PROJECTIONS = (customer.CUSTOMERS, email_claim.EMAIL_CLAIMS)
