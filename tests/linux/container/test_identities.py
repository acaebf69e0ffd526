"""Ranges of ids for containers, and the choice among the ways to map them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.linux.container import identities
from anyvirt.linux.container.identities import COUNT, Identities, choose_identities, range_of


@given(st.text(alphabet="0123456789abcdef", min_size=12, max_size=12))
def test_ranges_are_among_those_set_aside_for_containers(identifier):
    first = range_of(identifier)
    assert first % COUNT == 0
    assert first >= 0x80000
    assert first + COUNT <= 0x6FFF0000


def test_ranges_differ():
    assert len({range_of(f"{number:012x}") for number in range(500)}) > 480


def test_the_choice(monkeypatch):
    monkeypatch.setattr(identities, "_commands_mounts", lambda: True)
    assert choose_identities() is Identities.MAPPED
    monkeypatch.setattr(identities, "_commands_mounts", lambda: False)
    monkeypatch.setattr(identities, "_subordinate_ranges", lambda: {})
    assert choose_identities() is Identities.SINGLE
    monkeypatch.setattr(identities, "_subordinate_ranges", lambda: {"newuidmap": (1, 2)})
    assert choose_identities() is Identities.SUBORDINATE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("me:100000:65536\n", (100000, 65535)),
        ("1000:200000:10\n", (200000, 10)),
        ("other:1:2\nme:300000:5\n", (300000, 5)),
        ("me:x:5\nme:1\n\n", None),
        ("me:100000:0\n", None),
        ("", None),
    ],
)
def test_ranges_in_files(tmp_path, text, expected):
    path = tmp_path / "subuid"
    path.write_text(text)
    assert identities._read_range(str(path), {"me", "1000"}) == expected


def test_a_missing_file(tmp_path):
    assert identities._read_range(str(tmp_path / "none"), {"me"}) is None
