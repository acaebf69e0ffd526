"""Run-time of the CPU core: guest memory, processor state, executors and the signals that stop them."""
