"""The public functions and the types they take and return, by what they are about.

Each function raises `GgufextError` for what files, models, servers and the system are like,
`TypeError` for an argument of another type than documented, and `ValueError` for a number outside
its range. What a module lists in ``__all__``, `ggufext` offers.
"""
