"""Environment variables that tell the emulator what is not part of the guest's command."""

GDB_VARIABLE = "ANYVIRT_GDB"
"""The address to wait for gdb at; the guest does not get to see it."""
