"""Devices of the VIRTIO standard (version 1.2): one file each, beside the rings and transports they share."""
