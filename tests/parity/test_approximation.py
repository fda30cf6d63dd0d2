"""Models that are not meant to be equal: signal to noise ratios, and what they are judged by."""

import importlib
import json
import math

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

import onnxfuse
from onnxfuse import ModelError
from onnxfuse.parity.approximation import decibels, relative_error
from onnxfuse.runtime import open_session
from tests.lift.building import Builder
from tests.parity.breaking import changed
from tests.parity.integers import images, network, quantized
from tests.parity.test_odd_models import parsed


@pytest.fixture
def recorded(tmp_path):
    np.savez(tmp_path / "images.npz", x=images())
    return tmp_path / "images.npz"


def check(first, second, **options):
    return onnxfuse.check(first, second, threads=1, **options)


def ratio(first, second, feeds):
    """The signal to noise ratio of two models in decibels, from the sums of squares."""
    runs = [
        onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0].astype(float)
        for model in (first, second)
    ]
    return 10 * math.log10((runs[0] ** 2).sum() / ((runs[1] - runs[0]) ** 2).sum())


# The number -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        ([3, 4], [3, 4], 0.0),
        ([3, 4], [3, 4.5], 0.1),
        ([3, 4], [-3, -4], 2.0),
        ([3e-200, 4e-200], [3e-200, 4.5e-200], 0.1),
        ([3e200, 4e200], [3e200, 4.5e200], 0.1),
        ([0, 0], [0, 0], 0.0),
        ([0, 0], [0, 1e-9], math.inf),
        ([math.inf, 4], [math.inf, 4.4], 0.1),
        ([math.nan, 4], [math.nan, 4], 0.0),
        ([3, 4], [3, math.nan], math.inf),
        ([3, math.inf], [3, -math.inf], math.inf),
        ([], [], 0.0),
    ],
)
def test_relative_error(first, second, error):
    assert relative_error(np.array(first), np.array(second)) == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize(
    ("error", "expected"), [(0.1, 20), (1, 0), (10, -20), (0, math.inf), (math.inf, -math.inf)]
)
def test_decibels(error, expected):
    assert decibels(error) == pytest.approx(expected)


# The verdict ------------------------------------------------------------------------------------


def test_an_int8_model_agrees_up_to_its_ratio(recorded):
    first, second = network(), quantized()
    expected = ratio(first, second, {"x": images()})
    assert 15 < expected < 50
    near = check(first, second, inputs=recorded, min_snr=expected - 0.1)
    far = check(first, second, inputs=recorded, min_snr=expected + 0.1)
    assert (near.agrees, far.agrees) == (True, False)
    (output,) = far.outputs
    assert output.reason == f"its SNR is {expected:.1f} dB, less than {expected + 0.1:g} dB"
    assert output.closeness.snr_db == pytest.approx(expected, abs=1e-3)
    assert decibels(output.second_error) == pytest.approx(expected, abs=1e-3)
    assert decibels(output.bound) == pytest.approx(expected + 0.1)
    assert not check(first, second, inputs=recorded).agrees


def test_the_ratio_by_definition_is_that_of_the_plain_kernels(recorded):
    first, second = network(), quantized()
    (output,) = check(first, second, inputs=recorded, min_snr=10).outputs
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain, truth = (
        onnxruntime.InferenceSession(m.SerializeToString(), options).run(None, {"x": images()})[0]
        for m in (second, first)
    )
    error = np.linalg.norm(plain.astype(float) - truth) / np.linalg.norm(truth)
    # a number halfway between two codes is rounded either way: one step of the output in a hundred
    assert output.float64_error == pytest.approx(error, rel=0.05)


def test_noise_is_judged_and_special_inputs_are_shown():
    found = check(network(), quantized(), min_snr=3)
    judged = {output.inputs.split()[0]: output.judged for output in found.outputs}
    assert judged == {
        **{"random": True},
        **dict.fromkeys(("zeros", "constant", "large", "tiny"), False),
    }
    large = next(o for o in found.outputs if o.inputs.startswith("large"))
    assert decibels(large.second_error) < 3
    assert large.agrees
    assert large.float64_error is None
    assert any("is judged on noise: --inputs gives it others" in note for note in found.notes)


def test_a_model_that_was_not_calibrated_is_judged_on_noise_without_a_word():
    text = "g (float[n,4] x) => (float[n,4] y) { y = Mul(x, k) }"
    models = []
    for number in (1.0, 1.01):
        model = parsed(text)
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array(number, np.float32), "k")
        )
        models.append(model)
    found = check(*models, min_snr=39)
    assert found.agrees
    assert not check(*models, min_snr=41).agrees
    assert found.notes == ()
    assert found.truth == "the first model as ONNX Runtime computes it"
    assert found.meanings == ()


def test_equal_models_have_every_ratio():
    found = check(network(), network(), min_snr=1000)
    assert found.agrees
    assert {output.second_error for output in found.outputs} == {0.0}
    assert json.loads(found.to_json())["min_snr"] == 1000


def test_a_ratio_below_zero_can_be_asked_for():
    double = parsed("g (float[n,4] x) => (float[n,4] y) { n = Neg(x)  y = Add(n, n) }")
    same = parsed("g (float[n,4] x) => (float[n,4] y) { y = Identity(x) }")
    assert check(same, double, min_snr=-10).agrees  # |x + 2 x| is three times |x|: -9.5 dB
    assert not check(same, double, min_snr=-9).agrees


def test_what_is_no_number_differs():
    right = parsed("g (float[n,4] x) => (float[n,4] y) { y = Abs(x) }")
    wrong = parsed("g (float[n,4] x) => (float[n,4] y) { y = Sqrt(x) }")
    found = check(right, wrong, min_snr=-100)
    assert not found.agrees
    reasons = {output.reason for output in found.outputs if output.judged}
    assert reasons == {"it has NaN or infinity where it should not"}


def test_what_should_be_zero_differs():
    zeros = parsed("g (float[n,4] x) => (float[n,4] y) { y = Sub(x, x) }")
    small = parsed("g (float[n,4] x) => (float[n,4] y) { y = Abs(x) }")
    found = check(zeros, small, min_snr=-100)
    assert "the first model gives zeros there, and it does not" in {o.reason for o in found.outputs}


def test_outputs_of_another_shape_differ_on_every_input():
    first = parsed("g (float[n,4] x) => (float[a,b] y) { y = Identity(x) }")
    second = parsed("g (float[n,4] x) => (float[a,b] y) { y = Transpose(x) }")
    found = check(first, second, min_snr=1)
    assert {output.agrees for output in found.outputs} == {False}
    assert {output.judged for output in found.outputs} == {True}


def test_every_output_counts():
    text = "g (float[n,4] x) => (float[n,4] y, float[n,4] z) {{ y = Identity(x)  z = {}(x) }}"
    found = check(parsed(text.format("Abs")), parsed(text.format("Neg")), min_snr=20)
    assert {o.output: o.agrees for o in found.outputs if o.judged} == {"y": True, "z": False}


def test_integer_outputs_are_shown():
    text = "g (float[n,9] x) => (int64[n,1] i, float[n,9] y) {{ i = {}(x)  y = Identity(x) }}"
    found = check(
        parsed(text.format("ArgMax <axis = 1>")),
        parsed(text.format("ArgMin <axis = 1>")),
        min_snr=20,
    )
    assert found.agrees
    shares = [o.second_error for o in found.outputs if o.output == "i" and "random" in o.inputs]
    assert all(share > 0 for share in shares)
    assert not any(o.judged for o in found.outputs if o.output == "i")


def test_refuses_models_without_a_floating_output():
    model = parsed("g (float[n,9] x) => (int64[n,1] y) { y = ArgMax <axis = 1> (x) }")
    with pytest.raises(ModelError, match="nothing to judge by its SNR on cpu"):
        check(model, model, min_snr=20)


@pytest.mark.parametrize("number", [math.nan, math.inf, "20", True])
def test_refuses_what_is_no_ratio(number):
    with pytest.raises(ModelError, match="min_snr takes a"):
        check(network(), network(), min_snr=number)


def test_refuses_to_bisect_what_is_not_meant_to_be_equal():
    with pytest.raises(ModelError, match="leave one of them out"):
        check(network(), quantized(), min_snr=20, bisect=True)


def test_weights_in_few_bits():
    b = Builder(opset=21, seed=3)
    x = b.input("n", 8, 6, 6)
    weight = b.values(8, 8, 1, 1)
    full = b.model(b.op("Conv", x, b.constant(weight), output="y"), ir_version=10)
    scale = np.abs(weight).reshape(8, 2, 4, 1, 1).max(2) / 7
    codes = np.rint(weight / scale.repeat(4, 1))
    b = Builder(opset=21)
    x = b.input("n", 8, 6, 6)
    stored = b.constant(codes, elem_type=TensorProto.INT4)
    half = b.op("Cast", b.constant(scale, elem_type=TensorProto.FLOAT16), to=TensorProto.FLOAT)
    kernel = b.op("DequantizeLinear", stored, half, axis=1, block_size=4)
    small = b.model(b.op("Conv", x, kernel, output="y"), ir_version=10)
    found = check(full, small, min_snr=15)
    assert found.agrees
    for output in found.outputs:
        if output.judged:  # nothing but weights is rounded: the kernels add no noise
            assert output.float64_error == pytest.approx(output.second_error, rel=1e-3)
    assert not check(full, small, min_snr=60).agrees


def test_an_operator_without_a_definition_leaves_the_ratio_as_it_runs():
    first = parsed("g (float[n,4] x) => (float[n,4] y) { y = Gelu(x) }", 20)
    second = parsed("g (float[n,4] x) => (float[n,4] y) { y = com.microsoft.Gelu(x) }", 20)
    second.opset_import.add(domain="com.microsoft", version=1)
    found = check(first, second, min_snr=80)
    assert found.agrees
    assert {output.float64_error for output in found.outputs} == {None}
    assert any(note.startswith("no float64 evaluation: ") for note in found.notes)


class _Saturating:
    """A session that is off by a tenth where it optimizes, as kernels that saturate are."""

    def __init__(self, session):
        self.session = session

    def run(self, feeds, outputs=None):
        return [array * np.float32(0.9) for array in self.session.run(feeds, outputs)]


def saturate(monkeypatch):
    def opened(loaded, provider, *, optimization, **options):
        session = open_session(loaded, provider, optimization=optimization, **options)
        integers = any(n.op_type == "QuantizeLinear" for n in loaded.source.model.graph.node)
        return _Saturating(session) if integers and optimization != "off" else session

    checking = importlib.import_module("onnxfuse.parity.check")  # not the function
    monkeypatch.setattr(checking, "open_session", opened)


def test_what_is_lost_in_kernels_is_said(monkeypatch, recorded):
    saturate(monkeypatch)
    found = check(network(), quantized(), inputs=recorded, min_snr=25)
    assert not found.agrees
    (output,) = found.outputs
    assert decibels(output.second_error) < 21 < decibels(output.float64_error)
    (note,) = found.notes
    assert "as ONNX defines it" in note
    assert "processors without VNNI" in note


def test_kernels_that_saturate_hide_no_error(monkeypatch, recorded):
    saturate(monkeypatch)
    model = quantized()
    scale = onnx.numpy_helper.to_array(
        next(t for t in model.graph.initializer if t.name == "scales_1")
    ).copy()
    scale[2] *= 1.1
    right = check(model, model, inputs=recorded)
    wrong = check(model, changed(model, "scales_1", scale), inputs=recorded)
    assert right.agrees
    assert right.meanings
    assert not wrong.agrees
    assert not all(meaning.agrees for meaning in wrong.meanings)
    assert any("otherwise than it is defined" in note for note in right.notes)
