"""Fixtures for what images are made of."""

import pytest

from anyvirt.images.modules import ModuleTree


@pytest.fixture(scope="session")
def debian_modules(riscv64_kernel):
    """The modules of Debian's kernel for riscv64, as its package has them: depmod has not been there."""
    (directory,) = (riscv64_kernel / "usr/lib/modules").iterdir()
    return ModuleTree(directory)
