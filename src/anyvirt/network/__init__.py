"""How guests are joined with networks: user-mode networking, taps, and virtual sockets."""
