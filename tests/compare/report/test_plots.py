"""The plots are well-formed SVG, the same each time, in the colours of the page."""

from xml.etree import ElementTree

import matplotlib as mpl

from anyvirt.compare.report.plots import plots

TEXT = "{http://www.w3.org/2000/svg}text"


def words(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter(TEXT)]


def test_labels_are_text(sample_comparison):
    drawn = dict(plots(sample_comparison))
    assert list(drawn) == [
        "Run time relative to native (shorter is faster)",
        "Start-up: every sample, and the median",
        "Memory of an idle instance",
    ]
    ratio_words, start_words, memory_words = map(words, drawn.values())
    assert {"the integer", "2.00x", "1x", "boxes & <i>crates</i>"} <= set(ratio_words)
    assert {"the cold-start, native", "55 ms"} <= set(start_words)
    assert any("MiB" in word for word in memory_words)


def test_they_follow_the_page(sample_comparison):
    for _, svg in plots(sample_comparison):
        assert "currentColor" in svg
        assert "#123456" not in svg
        root = ElementTree.fromstring(svg)
        assert "width" not in root.attrib
        assert "viewBox" in root.attrib


def test_they_are_the_same_each_time(sample_comparison):
    assert plots(sample_comparison) == plots(sample_comparison)


def test_settings_of_matplotlib_stay_as_they_were(sample_comparison):
    before = dict(mpl.rcParams)
    plots(sample_comparison)
    assert dict(mpl.rcParams) == before
