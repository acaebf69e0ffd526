"""The process that a machine lives in: it runs the machine and joins its commands with the host."""
