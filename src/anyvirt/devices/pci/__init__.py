"""PCI: functions with their configuration space, the bus they sit on, and the host bridges that reach it."""
