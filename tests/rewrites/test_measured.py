"""The table of measured defaults, and what follows from it."""

from __future__ import annotations

import json
import math

import pytest

from onnxfuse.fold import FOLDS
from onnxfuse.pipeline import STEPS, TRIALS
from onnxfuse.rewrites import LAST, REWRITES, TRIED, measured
from onnxfuse.rewrites.measured import Row, threshold
from scripts import measure_defaults
from scripts.default_regions import regions


def row(gain: float | None, ratio: float, width: float = 0.01) -> Row:
    return Row("phases", "a region", gain, ratio, ratio - width, ratio + width)


def test_half_way_to_what_was_slower():
    assert threshold([row(1.0, 0.8), row(2.0, 1.1), row(4.0, 1.5)]) == 1.5


def test_a_slower_one_above_faster_ones():
    assert threshold([row(1.0, 1.2), row(2.0, 0.9), row(4.0, 1.5), row(3.0, 1.1)]) == 2.5


def test_nothing_is_slower():
    assert threshold([row(2.0, 1.1), row(4.0, 1.5), row(None, 0.5)]) == 1.0


def test_everything_is_slower():
    assert threshold([row(2.0, 0.5)]) == math.inf
    assert threshold([]) == math.inf


@pytest.mark.parametrize(("ratio", "width", "slower"), [(0.985, 0.1, False), (0.97, 0.1, True)])
def test_slower_by_two_percent(ratio, width, slower):
    assert threshold([row(1.0, ratio, width), row(3.0, 1.2)]) == (2.0 if slower else 0.5)


def test_slower_for_certain():
    assert threshold([row(1.0, 0.985, 0.01), row(3.0, 1.2)]) == 2.0


def test_every_step_and_every_trial_is_in_the_table():
    found = {row.step for row in measured.rows()}
    assert {*STEPS, *TRIALS} - found == {"phases sooner"}
    assert {(region.step, region.name) for region in regions()} == {
        (row.step, row.region) for row in measured.rows()
    }


@pytest.mark.parametrize("step", [FOLDS, *REWRITES, *LAST])
def test_what_is_done_by_default_paid(step):
    rows = [row for row in measured.rows() if row.step == step]
    done = [row for row in rows if row.gain is None or row.gain > threshold(rows)]
    assert done
    assert math.prod(row.ratio for row in done) > 1
    assert all(row.high >= 1 or row.ratio > 0.95 for row in done)


def test_phases_sooner_are_what_phases_by_default_are_not():
    assert measured.paying_from("phases") > TRIED["phases sooner"].keywords["margin"]


def test_a_step_measured_again(tmp_path, monkeypatch, capsys):
    table = tmp_path / "measured.json"
    table.write_text(measure_defaults.FILE.read_text())
    monkeypatch.setattr(measure_defaults, "FILE", table)
    measure_defaults.main(["--only", "shifts", "--rounds", "4", "--write"])
    assert capsys.readouterr().out.count("| shifts |") == 3
    rows = json.loads(table.read_text())["rows"]
    assert [row["step"] for row in rows].count("shifts") == 3
    assert len(rows) == len(measured.rows())


def test_a_rewrite_by_its_gain():
    region = next(r for r in regions("shuffles"))
    model, gain = measure_defaults.made(region)
    assert gain is not None
    assert "DepthToSpace" in [node.op_type for node in model.graph.node]
