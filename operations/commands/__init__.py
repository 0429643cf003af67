"""The commands of `diptych`. Each imports what it needs when it runs."""
