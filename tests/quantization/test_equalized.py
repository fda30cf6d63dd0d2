"""`quantize` with equalization, and without."""

import itertools
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxfuse
from onnxfuse import quantize
from onnxfuse.equalization import SPLIT, equalize
from tests.lift.building import Builder
from tests.lift.comparing import run
from tests.quantization.building import QUICK, images, network

TRAINED = Path(__file__).resolve().parents[2] / "models" / "trained"


def test_equalization_can_be_left_out():
    data = {"x": images()}
    with_it, without = (quantize(network(), data, equalize=e, **QUICK) for e in (True, False))
    assert len(with_it.report.equalized) > len(without.report.equalized) == 0
    assert all(n.certificate.error <= n.certificate.allowed for n in with_it.report.equalized)
    names = [form.name for form in quantize(network(), data, equalize=False).report.forms]
    assert names == ["float", "float, folded", "int8", "int8, folded"]


def test_says_where_equalization_does_harm(monkeypatch):
    """Here it does, since channels are scaled at random."""

    def at_random(count, activations, weights, *, weight_steps):
        return np.concatenate([[1.0], 2.0 ** np.random.default_rng(0).uniform(-6, 6, count - 1)])

    monkeypatch.setattr(sys.modules[equalize.__module__], "balanced", at_random)
    (note,) = quantize(network(), {"x": images()}).report.notes[-1:]
    assert note.startswith("without equalization (--no-equalize) it is ")


def identity_branch():
    """What RepVGG folds to: one large number in each channel, which is split off."""
    b = Builder()
    t = b.op("Relu", b.conv(b.input("n", 3, 8, 8), 3, 8, (3, 3), pads=[1] * 4))
    weight = b.constant(0.02 * b.values(8, 8, 3, 3))
    both = b.op("Add", b.op("Conv", t, weight, pads=[1] * 4), t, output="sum")
    b.conv(b.op("Relu", both), 8, 5, (1, 1), output="y")
    return b.model("y")


def test_a_kept_layer_is_not_split():
    model, data = identity_branch(), {"x": images(8)}
    assert SPLIT in {n.change for n in quantize(model, data, **QUICK).report.equalized}
    result = quantize(model, data, keep=["sum"], **QUICK)
    assert SPLIT not in {n.change for n in result.report.equalized}
    assert [refused.reason for refused in result.report.left] == ["it is to stay float"]


def test_a_kept_tensor_holds_what_it_did():
    model, data = identity_branch(), {"x": images(8)}
    result = quantize(model, data, keep=["sum"], **QUICK)
    for each in (model, result.model):
        each.graph.output.append(onnx.ValueInfoProto(name="sum"))
    (_, expected), (_, found) = run(model, data), run(result.model, data)
    noise = np.square(found - expected, dtype=np.float64).sum()
    assert 10 * np.log10(np.square(expected, dtype=np.float64).sum() / noise) > 30


# What folding alone loses ------------------------------------------------------------------------


def held_digits():
    with np.load(TRAINED / "digits_test.npz") as held:
        return held["images"], held["labels"]


def uneven(model, seed=0):
    """The same function, the channels of each layer scaled by powers of two from 1/32 to 32."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    rng = np.random.default_rng(seed)
    held = {t.name: t for t in made.graph.initializer}
    nodes = [n for n in made.graph.node if n.op_type == "Conv"]
    for first, second in itertools.pairwise(nodes):
        weight, following = (numpy_helper.to_array(held[n.input[1]]) for n in (first, second))
        scale = 2.0 ** rng.integers(-5, 6, len(weight))
        changed = {
            first.input[1]: weight * scale.reshape(-1, 1, 1, 1),
            first.input[2]: numpy_helper.to_array(held[first.input[2]]) * scale,
            second.input[1]: following / scale.reshape(1, -1, 1, 1),
        }
        for name, value in changed.items():
            held[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", ["repvgg", "dbb"])
def test_uneven_channels_lose_accuracy_by_folding_alone(name):
    """Equalized, they are within half a point of the float model's accuracy."""
    pictures, labels = held_digits()
    model = uneven(onnxfuse.optimize(TRAINED / f"{name}_digits.onnx").model)
    given = {"image": pictures[:96]}
    judged = list(zip(pictures, labels, strict=True))
    report = quantize(model, given, evaluation=judged, threads=1).report
    accuracy = {form.name: form.quality.accuracy for form in report.forms}
    assert accuracy["int8, folded, equalized"] >= accuracy["float"] - 0.005
    assert accuracy["int8, folded"] < accuracy["float"] - 0.02


def test_what_an_identity_branch_leaves_is_computed_apart():
    b = Builder(seed=1)
    x = b.input("n", 64, 8, 8)
    for _ in range(2):
        weight = 0.03 * b.rng.standard_normal((64, 64, 3, 3))
        weight[np.arange(64), np.arange(64), 1, 1] += 1.5
        x = b.op("Relu", b.op("Conv", x, b.constant(weight), b.random(64), pads=[1] * 4))
    data = {"x": np.random.default_rng(0).standard_normal((8, 64, 8, 8)).astype(np.float32)}
    report = quantize(b.model(x), data, threads=1).report
    snr = {form.name: form.quality.snr for form in report.forms}
    assert snr["int8, folded, equalized"] > snr["int8, folded"] + 6
    assert any(made.change == SPLIT for made in report.equalized)
