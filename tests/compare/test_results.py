"""Statistics of samples, against NumPy's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyvirt.compare.results import Measured, percentile, ratios

FLOATS = st.floats(-1e9, 1e9)


@given(st.lists(FLOATS, min_size=1, max_size=30), st.floats(0, 100))
def test_percentiles_are_those_of_numpy(samples, percent):
    numpy = pytest.importorskip("numpy")
    expected = numpy.percentile(samples, percent)
    assert percentile(samples, percent) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_no_samples_have_no_percentile():
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_ratios_pair_samples_of_the_same_turn():
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == (2.0, 3.0, 1.0)
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0]) == (2.0, 3.0)


@pytest.mark.parametrize("baseline", [[1.0, 0.0], [1.0, -2.0], []])
def test_nothing_relates_to_a_baseline_that_is_not_positive(baseline):
    assert ratios([1.0, 1.0], baseline) == ()


def test_a_cell_tells_its_medians():
    cell = Measured((3.0, 1.0, 2.0), (1.5, 4.0))
    assert (cell.median, cell.ratio) == (2.0, 2.75)
    assert Measured((1.0,)).ratio is None


def test_rows_are_found_by_name(sample_comparison):
    assert sample_comparison.row("integer").title == "the integer"
    with pytest.raises(KeyError):
        sample_comparison.row("nothing")


def test_a_comparison_prints_as_its_table(sample_comparison):
    assert "the integer" in str(sample_comparison)
