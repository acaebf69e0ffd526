"""IEEE 754 in typed Python against the host's own arithmetic, exact rationals, and its compiled form."""
