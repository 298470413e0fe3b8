"""Inner loops compiled by numba: arrays in, arrays out, no knowledge of problems or documents.

mypy does not look inside: numba types these functions when it compiles them, and their callers are typed.
"""
