"""Whole machines: a board, the CPUs on it, and their time, run together."""
