"""Ways to choose a node and its GPUs, each written from its paper: what the scheduler's own is compared with.

They share no scoring with the scheduler; `Nodes`, which counts what is free, is the same for all. Of equal nodes each
takes the first.
"""
