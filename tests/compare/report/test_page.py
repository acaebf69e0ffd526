"""The page: complete, escaped, self-contained, with and without plots."""

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from anyvirt.compare.report import plots, write_html
from anyvirt.compare.report.page import page

VOID = {"meta", "br", "path", "use", "line", "rect"}


class Outline(HTMLParser):
    """The elements and the text of a page; fails on elements that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.stack, self.tags, self.words, self.attributes = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def outline(text):
    parser = Outline()
    parser.feed(text)
    assert parser.stack == []
    return parser


def test_what_others_wrote_is_text(sample_comparison):
    parsed = outline(page(sample_comparison))
    text = "".join(parsed.words)
    assert "script" not in parsed.tags
    assert "i" not in parsed.tags
    assert "b" not in parsed.tags
    assert "<script>alert(1)</script>" in text
    assert "<script>alert(2)</script>" in text
    assert "A <b>fast</b> CPU" in text
    assert "boxes & <i>crates</i>" in text


def test_nothing_is_loaded(sample_comparison):
    text = page(sample_comparison)
    parsed = outline(text)
    for name, value in parsed.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value.startswith("#")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not {"link", "img", "iframe", "object", "embed"} & set(parsed.tags)


def test_every_row_engine_and_sample_is_there(sample_comparison):
    text = "".join(outline(page(sample_comparison)).words)
    for row in sample_comparison.rows:
        assert row.title in text
        assert row.description in text
    for part in ("33 µs", "3.00", "each over 500 rounds", "not measured: no", "p99 59.9 ms", "2.00x  20 µs"):
        assert part in text


def test_the_plots_are_drawn(sample_comparison):
    assert outline(page(sample_comparison)).tags.count("svg") == 3


def test_without_matplotlib_the_tables_are_there(sample_comparison, monkeypatch):
    monkeypatch.setattr(plots, "available", lambda: False)
    text = page(sample_comparison)
    assert "pip install &#x27;anyvirt[report]&#x27;" in text or "pip install 'anyvirt[report]'" in text
    assert "<svg" not in text
    assert "2.00x" in text


def test_it_is_written_whole(sample_comparison, tmp_path):
    path = tmp_path / "report.html"
    write_html(sample_comparison, path)
    assert path.read_text(encoding="utf-8") == page(sample_comparison)


def test_nothing_measured(sample_comparison):
    empty = dataclasses.replace(sample_comparison, rows=(), baseline=None)
    assert "<table" not in page(empty)


@pytest.mark.parametrize("samples", [(0.0,), (-5.0, -1.0), (1e-9, 1e3)])
def test_odd_samples_do_not_break_it(sample_comparison, samples):
    rows = []
    for row in sample_comparison.rows:
        cells = {
            name: dataclasses.replace(cell, samples=samples, ratios=()) if hasattr(cell, "samples") else cell
            for name, cell in row.cells.items()
        }
        rows.append(dataclasses.replace(row, cells=cells))
    outline(page(dataclasses.replace(sample_comparison, rows=tuple(rows))))
