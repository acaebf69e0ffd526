"""What a machine is started with: kernels, initial file systems, disks, and the store that keeps them."""
