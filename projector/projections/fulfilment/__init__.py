"""The views of fulfilment."""

from projector.projections.fulfilment import fulfilment

PROJECTIONS = (fulfilment.FULFILMENTS,)
