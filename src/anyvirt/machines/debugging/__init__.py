"""Debugging whole machines: as a target for gdb, and by commands of our own."""
