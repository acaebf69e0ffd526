"""The commands of the monitor, each a function in the file of its section, in one table."""
