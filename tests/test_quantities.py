"""Sizes, CPU counts and durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.errors import UsageError
from anyvirt.quantities import format_duration, format_size, parse_cpus, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("65536", 65536),
        ("512M", 512 << 20),
        ("512MiB", 512 << 20),
        ("512mb", 512 << 20),
        ("1.5G", 3 << 29),
        (" 2 K ", 2048),
        ("1T", 1 << 40),
    ],
)
def test_a_size_is_a_number_with_a_binary_unit(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "M", "512X", "-5M", "0", "0.0001", "1e9", "5 5", "9E", "8388608T", "nan", "٣M x"]
)
def test_a_size_that_makes_no_sense_is_refused_by_name(text):
    with pytest.raises(UsageError, match="memory limit"):
        parse_size(text, what="memory limit")


@given(st.integers(min_value=1, max_value=(1 << 63) - 1))
def test_plain_bytes_are_exact(size):
    assert parse_size(str(size)) == size


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "two", "", "5000", "1,5"])
def test_a_cpu_count_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError, match="CPU count"):
        parse_cpus(text)


def test_cpu_counts_may_be_fractional():
    assert parse_cpus("1.5") == 1.5


def test_formats_for_readers():
    assert [format_size(n) for n in (5, 1536, 64 << 20, 3 << 40)] == ["5 B", "1.5 KiB", "64.0 MiB", "3.0 TiB"]
    assert [format_duration(s) for s in (1.234, 0.00456, 12.3e-6, 5e-9)] == [
        "1.23 s",
        "4.56 ms",
        "12.3 µs",
        "5 ns",
    ]
