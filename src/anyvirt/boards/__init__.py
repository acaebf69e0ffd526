"""Machine types: each wires chips to a memory map. None of them knows what runs its CPUs."""
