"""The Linux user-space ABI for programs of another ISA: their system calls on the host's kernel."""
