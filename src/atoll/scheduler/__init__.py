"""Pure decisions over what waits: no I/O, and no clock but the one it is given.

`control` keeps a `snapshot.Snapshot` current, asks `cycle.cycle` what to do and carries it out; the jobs room
asks `fit.impossible` at a submission and `explain.explain` for `why`.
"""
