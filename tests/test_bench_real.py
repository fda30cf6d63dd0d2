"""The script that measures pretrained models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts import bench_real
from tests.lift.building import Builder
from tests.lift.comparing import run

MODEL = Path(__file__).parent.parent / "models" / "three_branch.onnx"


@pytest.mark.parametrize("last", ["Sigmoid", "Softmax"])
def test_logits_are_in_front_of_the_last_activation(last):
    b = Builder()
    y = b.op("Relu", b.op("Sigmoid", b.input(2, 3)))
    model = b.model(b.op(last, b.op("Neg", y)), b.op("Abs", y))
    x = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
    cut = bench_real.logits(model)
    first, second = run(cut, x)
    np.testing.assert_array_equal(first, -second)
    assert model.graph.output[0].name != cut.graph.output[0].name


@pytest.mark.slow
def test_any_model_is_a_row_of_the_table(tmp_path, capsys):
    options = ["--rounds", "4", "--others", "ONNX Runtime offline", "--output", str(tmp_path)]
    bench_real.main([str(MODEL), *options])
    printed = capsys.readouterr().out
    line = printed.splitlines()[2]
    assert line.startswith("| three_branch | 1x3x32x32 | 45 -> 15 | ")
    assert "| ONNX Runtime offline " in line
    assert line in (tmp_path / "real.md").read_text()


def test_errors_are_those_of_rounding():
    import onnx

    off = bench_real.errors(onnx.load(MODEL), None, 1)
    assert 0 < off.between < 1e-5
    assert off.after < 2 * off.before + 1e-6
