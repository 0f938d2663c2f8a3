"""The scheduler's own cycle on a virtual clock, over a trace and a cluster that is only described.

`cluster` says what there is, `shape` makes jobs that can wait of what a trace tells, `engine` runs them on the nodes
that `machines` keeps, `metrics` judges a run, and `study` does it for several policies; `atoll simulate` calls that.
Nothing here reads files or a clock.
"""
