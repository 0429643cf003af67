"""Events that projections and sagas cannot apply: listing, showing and retrying them."""
