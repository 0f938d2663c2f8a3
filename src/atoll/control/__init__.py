"""The loops that carry decisions out: level-triggered, each under a lease, restartable at any line.

Every loop does the same three things: load what needs doing in a short transaction, do it outside any transaction,
write the result down in a transaction that is guarded by the loop's lease. So a loop may be killed anywhere.
"""
