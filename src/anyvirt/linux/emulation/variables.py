"""Environment variables that tell the emulator what is not part of the guest's command."""

GDB_VARIABLE = "ANYVIRT_GDB"
"""The address to wait for gdb at; the guest does not get to see it."""
TRACE_VARIABLE = "ANYVIRT_TRACE"
"""The file for a line about each instruction of the guest's first process; not for the guest either."""
COVERAGE_VARIABLE = "ANYVIRT_COVERAGE"
"""The file for what that process has executed."""
