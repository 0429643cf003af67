"""What the tests of a context need: its rules, folds and sagas in memory. It is in the servers' wheel."""
