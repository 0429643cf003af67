"""The proof: unit (no servers), contract (one suite per port), integration (one server), e2e (all of it),
and architecture (what may know what, and that nothing was forgotten)."""
