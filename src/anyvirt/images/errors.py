"""The error of everything that reads or makes images."""

from anyvirt.errors import AnyvirtError


class ImageError(AnyvirtError):
    """A kernel, module, file system or disk image is damaged, of a kind unknown here, or cannot be made."""
