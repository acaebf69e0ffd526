"""Report files appear whole or not at all."""

import os

import pytest

from anyvirt.compare.report.files import write_text
from anyvirt.errors import UsageError


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "report"
    path.write_text("old")
    write_text(path, "näw")
    assert path.read_text(encoding="utf-8") == "näw"
    assert os.listdir(tmp_path) == ["report"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "directory").mkdir()
    with pytest.raises(UsageError, match="directory: it is a directory"):
        write_text(tmp_path / "directory", "text")
    with pytest.raises(UsageError, match=r"cannot be written to .*missing/report: No such file"):
        write_text(tmp_path / "missing" / "report", "text")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "report"
    path.write_text("old")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UsageError, match="No space left on device"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report"]
