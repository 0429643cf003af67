"""The proof: unit (no servers), contract (one suite per port), integration (one server), e2e (all of it)."""
