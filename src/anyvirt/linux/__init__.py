"""The Linux ABI: programs, system calls, and the kernel's means of isolation."""
