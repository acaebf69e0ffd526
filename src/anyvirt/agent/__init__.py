"""The agent: the first process of a guest with a kernel of its own, and the host's end of its channel.

A room of its own, because its two halves serve others: engines talk to the agent of a running machine without
touching images, and images carry its program without knowing how it is talked to. `protocol` is what the two
halves share, `client` the host's half, `guest` the program, written in typed Python.
"""
