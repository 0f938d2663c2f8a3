"""All SQL of Atoll, and the files beside it: one module for each aggregate, plain functions over a connection.

`Database` hands out transactions; the functions here are called inside them, by the rooms' services and the loops.
"""
