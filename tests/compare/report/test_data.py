"""The JSON report holds everything."""

import json

from anyvirt.compare.report import write_json
from anyvirt.compare.report.data import SCHEMA, to_data


def test_every_sample_survives(sample_comparison, tmp_path):
    path = tmp_path / "report.json"
    write_json(sample_comparison, path)
    read = json.loads(path.read_text())
    assert read == to_data(sample_comparison)
    assert read["schema"] == SCHEMA
    assert read["host"]["cpu"] == "A <b>fast</b> CPU"
    assert read["command"] == list(sample_comparison.command)
    assert [engine["name"] for engine in read["engines"]] == ["native", "boxes & <i>crates</i>", "absent"]
    for row, original in zip(read["rows"], sample_comparison.rows, strict=True):
        assert row["cells"].keys() == original.cells.keys()
    cell = read["rows"][1]["cells"]["boxes & <i>crates</i>"]
    assert cell["kind"] == "measured"
    assert cell["samples"] == [2e-5, 3.3e-5, 1.2e-5]
    assert cell["median"] == 2e-5
    assert (cell["minimum"], cell["maximum"], cell["rounds"]) == (1.2e-5, 3.3e-5, 500)
    assert cell["ratio"]["samples"] == [2.0, 3.0, 1.0]
    assert read["rows"][3]["cells"]["native"] == {"kind": "reported", "text": "0", "note": ""}
    assert read["rows"][0]["cells"]["absent"]["kind"] == "unmeasured"
