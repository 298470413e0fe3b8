"""Exact engines for small problems: the whole horizon with CP-SAT, and op counters over time as a MILP."""
