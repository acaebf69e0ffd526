"""Fresh guests for tests: commands, files, ports and consoles, by one interface on every engine."""
