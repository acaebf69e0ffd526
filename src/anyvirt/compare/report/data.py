"""A comparison as JSON: every raw sample, with a version of the format.

A cell has `kind` "measured" (with `samples`, `ratios`, their medians and ranges), "reported" (with `text`) or
"unmeasured" (with `reason`). Times are seconds, sizes bytes.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from anyvirt.compare.results import Measured, Reported, percentile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyvirt.compare.results import Cell, Comparison, Row

SCHEMA = 1
"""Raised whenever a reader of the format would have to change."""


def to_json(comparison: Comparison) -> str:
    """The comparison as JSON text."""
    return json.dumps(to_data(comparison), indent=2, ensure_ascii=False) + "\n"


def to_data(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain dictionaries and lists."""
    return {
        "schema": SCHEMA,
        "started": comparison.started,
        "duration_seconds": comparison.duration,
        "command": list(comparison.command),
        "baseline": comparison.baseline,
        "host": asdict(comparison.host),
        "engines": [asdict(column) for column in comparison.engines],
        "notes": list(comparison.notes),
        "rows": [_row(row) for row in comparison.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "title": row.title,
        "group": row.group,
        "unit": row.unit,
        "description": row.description,
        "cells": {engine: _cell(cell) for engine, cell in row.cells.items()},
    }


def _cell(cell: Cell) -> dict[str, Any]:
    if isinstance(cell, Measured):
        return {
            "kind": "measured",
            **_statistics(cell.samples),
            "rounds": cell.rounds,
            "ratio": {**_statistics(cell.ratios)} if cell.ratios else None,
            "note": cell.note,
        }
    if isinstance(cell, Reported):
        return {"kind": "reported", "text": cell.text, "note": cell.note}
    return {"kind": "unmeasured", "reason": cell.reason}


def _statistics(samples: Sequence[float]) -> dict[str, Any]:
    return {
        "median": percentile(samples, 50),
        "minimum": min(samples),
        "maximum": max(samples),
        "p99": percentile(samples, 99),
        "samples": list(samples),
    }
