"""The table in the terminal."""

import dataclasses

from anyvirt.compare.report import table_text


def test_values_ratios_and_reasons(sample_comparison):
    text = table_text(sample_comparison, width=140)
    assert "native" in text
    assert "boxes & <i>crates</i>" in text
    assert "2.00x  20 µs" in text
    assert "1.00 to 3.00" in text
    assert "p99 59.9 ms" in text
    assert "not measured [1]" in text
    assert "[1] no <script>alert(1)</script>" in text
    assert text.count("alert(1)") == 1
    assert "the output differs from the baseline's" in text
    assert "relative to native" in text


def test_markup_in_names_is_shown_as_it_is(sample_comparison):
    column = dataclasses.replace(sample_comparison.engines[0], name="[bold]x[/bold]")
    rows = tuple(
        dataclasses.replace(row, cells={**row.cells, column.name: row.cells["native"]})
        for row in sample_comparison.rows
    )
    changed = dataclasses.replace(sample_comparison, engines=(column,), rows=rows)
    assert "[bold]x[/bold]" in table_text(changed)


def test_a_narrow_terminal_loses_nothing(sample_comparison):
    text = "".join(table_text(sample_comparison, width=60).split())
    for part in ("2.00x", "238x", "[1]"):
        assert part in text


def test_nothing_measured(sample_comparison):
    empty = dataclasses.replace(
        sample_comparison, rows=(), baseline=None, notes=("No engine could be measured.",)
    )
    assert "No engine could be measured." in table_text(empty)
