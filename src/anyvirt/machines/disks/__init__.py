"""The disks of machines, which can be brought back, copied and kept as they are at any moment."""
