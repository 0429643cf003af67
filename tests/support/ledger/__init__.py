"""The ledger: a toy context of another distribution, on which the tests of the platform run.

It has one of everything: commands of two versions, a command over several streams, views with columns,
indexes, counters, histories, event counters and change feeds, queries and watches, a saga, and the folds of
`verify`. Tests of the platform use it in place of the repository's own contexts, so that a change of an
order's fields or indexes turns none of them red. Its Protobuf package is not under `diptych.`.
"""
