"""File descriptors under numbers that guests hardly use."""

import os
import resource

from anyvirt.cpu.descriptors import make_room, out_of_the_way


def test_a_copy_has_a_high_number_and_is_not_inherited(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        copy = out_of_the_way(file.fileno())
        try:
            assert copy >= 900
            assert os.path.sameopenfile(copy, file.fileno())
            assert not os.get_inheritable(copy)
        finally:
            os.close(copy)


def test_the_limit_on_descriptors_is_respected(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (tmp_path / "file").open("wb") as file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (800, hard))
        try:
            assert out_of_the_way(file.fileno()) is None
            make_room()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_making_room_leaves_nothing_open():
    before = os.listdir("/proc/self/fd")
    make_room()
    assert os.listdir("/proc/self/fd") == before
