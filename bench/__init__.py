"""The benchmarks: `python -m bench` runs them all, `python -m bench NAME...` some, and prints one table.

Each module has one function that measures and returns rows; nothing is asserted about speed. What a row is, how its
statistics come about and how the table looks is in `figures`.
"""
