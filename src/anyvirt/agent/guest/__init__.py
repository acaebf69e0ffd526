"""The agent's program, in typed Python: it runs in the guest, as its first process, on bare system calls."""
