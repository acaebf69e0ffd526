"""OS-level virtualization: a container from its specification to its removal.

`client` speaks for the caller, `keeper` owns the instances, `init` is the container's first process and
`joining` starts further ones; what they exchange is in `specification` and `channel`.
"""
