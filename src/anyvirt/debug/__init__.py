"""Debugging guests from outside: gdb's remote serial protocol over an abstract target."""
