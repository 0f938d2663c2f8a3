"""The supervisor of one site: one small process that starts attempts, enforces their limits and knows their ends.

It uses the standard library only and imports nothing of Atoll outside this folder but the reader of the wrapper's
records. Begun by `boot.py`; the driver speaks to it through a unix socket.
"""
