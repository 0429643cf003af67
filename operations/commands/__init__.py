"""The commands of `diptych`. Each imports its libraries when it runs, so that all start fast."""
