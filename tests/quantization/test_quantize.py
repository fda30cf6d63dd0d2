"""`quantize`: what the int8 model is, and what stays of the float one."""

import json
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import onnxfuse
from onnxfuse import ModelError, OnnxfuseError, quantize
from onnxfuse.quantization.library import METHODS
from onnxfuse.quantization.scales import unsaturated_scales
from tests.lift.building import Builder, same
from tests.quantization.building import (
    QUICK,
    constant,
    images,
    makers,
    network,
    operators,
)

TRAINED = Path(__file__).resolve().parents[2] / "models" / "trained"


def run(model, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    data = model.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def near(model, made, feeds, decibels=20):
    """Whether the SNR of the first outputs is that of 8-bit arithmetic in a few layers.

    Rounding to 255 steps of a range is uniform noise of 1/12 of a step squared: 40 dB and more for
    values that use a tenth of their range; 7-bit weights and a few layers may cost half of that.
    """
    expected, found = (run(m, feeds)[0].astype(np.float64) for m in (model, made))
    return 10 * np.log10(np.square(expected).sum() / np.square(found - expected).sum()) > decibels


def test_layers_are_int8_and_close():
    model = network()
    result = quantize(model, {"x": images(32)}, **QUICK)
    counts = {q.operator: (q.count, q.total) for q in result.report.operators}
    assert counts == {"Conv": (2, 2), "Gemm": (1, 1)}
    assert near(model, result.model, {"x": images(8, seed=1)})


@pytest.mark.parametrize("bits", [7, 8])
def test_scales_are_those_of_the_definition(bits):
    """Weights: largest absolute value of a channel / 127, or what `scales` says of 7 bits.

    Activations: range / 255.
    """
    data = images(6)
    result = quantize(network(), {"x": data}, weight_bits=bits, equalize=False, **QUICK)
    folded = onnxfuse.optimize(network()).model
    conv = next(node for node in folded.graph.node if node.op_type == "Conv")
    weight = constant(folded, conv.input[1])
    made = makers(result.model)
    quantized = next(node for node in result.model.graph.node if node.op_type == "Conv")
    dequantize = made[quantized.input[1]]
    values, scales = (constant(result.model, name) for name in dequantize.input[:2])
    assert values.dtype == np.int8
    rows = weight.reshape(len(weight), -1)
    expected = unsaturated_scales(rows) if bits == 7 else np.abs(rows).max(1) / 127
    np.testing.assert_allclose(scales, expected, rtol=1e-5)
    steps = weight / scales[:, None, None, None]
    assert np.abs(values - steps).max() <= 0.5 + 1e-4  # float32 divides with an error of 1e-7 each
    activation = made[quantized.input[0]]
    scale, zero = (constant(result.model, name) for name in activation.input[1:])
    low, high = float(data.min()), float(data.max())
    assert zero.dtype == np.uint8
    np.testing.assert_allclose(scale, (high - low) / 255, rtol=1e-5)
    assert abs(int(zero) - (-low / float(scale))) <= 0.5 + 1e-3


def test_the_same_model_gives_the_same_bytes():
    data = {"x": images()}
    first, second = (quantize(network(), data, **QUICK).model for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()


def test_the_model_given_is_not_changed():
    model = network()
    before = model.SerializeToString()
    quantize(model, {"x": images()}, **QUICK)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_printed_and_no_state_changes(method, capfd):
    handlers, level = list(logging.root.handlers), logging.root.level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(network(), {"x": images()}, method=method, **QUICK)
    assert capfd.readouterr() == ("", "")
    assert (logging.root.handlers, logging.root.level) == (handlers, level)


def test_what_a_callback_prints_is_seen(capsys):
    quantize(network(), {"x": images()}, progress=lambda *told: print(*told), **QUICK)
    assert "calibrating 3 4" in capsys.readouterr().out


def test_names_types_and_metadata_stay():
    model = network()
    model.producer_name, model.doc_string, model.graph.doc_string = "maker", "words", "more"
    model.metadata_props.add(key="classes", value="5")
    made = quantize(model, {"x": images()}, **QUICK).model
    for name in ("producer_name", "doc_string", "metadata_props"):
        assert getattr(made, name) == getattr(model, name)
    assert list(made.graph.input) == list(model.graph.input)
    assert list(made.graph.output) == list(model.graph.output)
    assert (made.graph.name, made.graph.doc_string) == (model.graph.name, "more")
    onnx.checker.check_model(made, full_check=True)


def test_digits_are_within_half_a_point_of_float_accuracy():
    held = np.load(TRAINED / "digits_test.npz")
    for name in ("repvgg", "dbb", "mobileone"):
        path = TRAINED / f"{name}_digits.onnx"
        made = quantize(path, {"image": held["images"][:64]}, **QUICK).model
        feeds = {"image": held["images"]}
        accuracy = [
            np.mean(run(model, feeds)[0].argmax(1) == held["labels"])
            for model in (onnx.load(path), made)
        ]
        assert accuracy[1] >= accuracy[0] - 0.005, name


def test_forms_are_compared(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(network(), path)
    data = {"x": images(6)}
    labels = run(network(), data)[0].argmax(1)
    labels[0] = (labels[0] + 1) % 5
    given = list(zip(data["x"], labels, strict=True))
    report = quantize(path, data, evaluation=given, threads=1).report
    names = [form.name for form in report.forms]
    best = "int8, folded, equalized"
    assert names == ["float", "float, folded", "int8", "int8, folded", best]
    by_name = {form.name: form for form in report.forms}
    assert by_name["float"].quality.accuracy == pytest.approx(5 / 6)
    assert by_name["float"].quality.snr is None
    assert by_name["float"].file_bytes == path.stat().st_size
    assert by_name["float, folded"].quality.snr > 100
    assert by_name["float, folded"].ratio.value == 1
    assert all(form.latency.value > 0 for form in report.forms)
    made = quantize(path, data, **QUICK)
    made.save(tmp_path / "int8.onnx")
    assert by_name[best].file_bytes == (tmp_path / "int8.onnx").stat().st_size
    expected, found = (run(m, data)[0].astype(np.float64) for m in (network(), made.model))
    error = np.sqrt(np.square(found - expected).sum() / np.square(expected).sum())
    assert by_name[best].quality.error == pytest.approx(error, rel=1e-6)
    assert by_name[best].quality.snr == pytest.approx(-20 * np.log10(error), rel=1e-6)
    assert json.loads(report.to_json())["forms"][0]["name"] == "float"


def test_without_labels_there_is_no_accuracy():
    report = quantize(network(), {"x": images()}, threads=1).report
    assert {form.quality.accuracy for form in report.forms} == {None}


# Models in odd forms --------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [7, 9, 11, 12, 13, 21])
def test_old_opsets_are_raised(opset):
    model = network(opset=opset)
    made = quantize(model, {"x": images()}, **QUICK).model
    assert max(o.version for o in made.opset_import if not o.domain) == max(opset, 13)
    assert near(model, made, {"x": images(seed=1)})


def test_initializers_that_are_inputs_in_ir_version_3():
    model = network(opset=9, ir_version=3, list_initializers=True)
    made = quantize(model, {"x": images()}, **QUICK).model
    assert [value.name for value in made.graph.input] == ["x"]
    assert near(model, made, {"x": images(seed=1)})


def test_float16():
    model = network(opset=17, elem_type=TensorProto.FLOAT16)
    result = quantize(model, {"x": images()}, **QUICK)
    assert near(model, result.model, {"x": images(seed=1).astype(np.float16)})
    assert "float16" in result.report.notes[0]


def test_a_fixed_batch():
    model = network(batch=2)
    assert near(model, quantize(model, {"x": images(5)}, **QUICK).model, {"x": images(2, seed=1)})


def test_external_data_stays_external(tmp_path):
    model = network()
    onnx.save(
        model, tmp_path / "a.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    result = quantize(tmp_path / "a.onnx", {"x": images()}, **QUICK)
    result.save(tmp_path / "b.onnx")
    assert near(network(), onnx.load(tmp_path / "b.onnx"), {"x": images(seed=1)})
    with pytest.raises(ModelError, match="input file"):
        result.save(tmp_path / "a.onnx")


def test_a_weight_that_two_layers_share():
    b = Builder()
    x = b.input("n", 3, 8, 8)
    weight = b.random(3, 3, 3, 3)
    t = b.op("Relu", b.op("Conv", x, weight, pads=same((3, 3))))
    b.op("Conv", t, weight, output="y")
    model = b.model("y")
    assert near(model, quantize(model, {"x": images()}, **QUICK).model, {"x": images(seed=1)})


def test_weights_in_constant_nodes():
    model = network()
    for tensor in list(model.graph.initializer):
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    made = quantize(model, {"x": images()}, **QUICK).model
    assert near(model, made, {"x": images(seed=1)})


def test_local_functions():
    model = network(opset=11)
    opset = model.opset_import[0]
    node = helper.make_node("Relu", ["a"], ["b"])
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [node], [opset]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.ir_version = 8
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Twice", "own"
    made = quantize(model, {"x": images()}, **QUICK).model
    assert near(model, made, {"x": images(seed=1)})


def with_body(weight_too=False):
    """An If whose branch reads what the first Relu makes, and its Conv's weight, perhaps."""
    b = Builder()
    x = b.input("n", 3, 8, 8)
    weight = b.random(3, 3, 1, 1, name="weight")
    t = b.op("Relu", b.op("Conv", x, weight), output="captured")
    flag = b.input(name="flag", elem_type=TensorProto.BOOL)
    nodes = [helper.make_node("Conv" if weight_too else "Mul", ["captured", "weight"], ["a"])]
    if not weight_too:
        nodes = [helper.make_node("Neg", ["captured"], ["a"])]
    shape = ["n", 3, 8, 8]
    result = [helper.make_tensor_value_info("a", TensorProto.FLOAT, shape)]
    then = helper.make_graph(nodes, "then", [], result)
    other = helper.make_graph([helper.make_node("Abs", ["captured"], ["a"])], "other", [], result)
    t = b.op("If", flag, then_branch=then, else_branch=other)
    b.conv(t, 3, 4, output="y")
    return b.model("y")


@pytest.mark.parametrize("weight_too", [False, True])
def test_what_a_body_reads_stays_float(weight_too):
    model = with_body(weight_too)
    flags = map(np.array, (True, False, True, False))
    data = [{"x": x, "flag": flag} for x, flag in zip(images(), flags, strict=True)]
    result = quantize(model, data, **QUICK)
    for flag in (True, False):
        feeds = {"x": images(seed=1), "flag": np.array(flag)}
        assert near(model, result.model, feeds)
    if weight_too:
        assert [r.reason for r in result.report.left] == ["a body reads its weight too"]


def test_a_weight_that_is_an_output_stays():
    b = Builder()
    x = b.input("n", 3, 8, 8)
    t = b.op("Conv", x, b.random(4, 3, 3, 3, name="weight"))
    b.conv(t, 4, 4, output="y")
    model = b.model("y", "weight")
    result = quantize(model, {"x": images()}, skip=["folds"], **QUICK)
    np.testing.assert_array_equal(run(result.model, {"x": images()})[1], constant(model, "weight"))
    (left,) = result.report.left
    assert left.reason == "its weight is an input or an output of the model"


def test_a_weight_that_can_be_overridden_stays():
    b = Builder()
    x = b.input("n", 3, 8, 8)
    t = b.op("Conv", x, b.random(4, 3, 3, 3, name="weight"))
    b.conv(t, 4, 4, output="y")
    model = b.model("y")
    info = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [4, 3, 3, 3])
    model.graph.input.append(info)
    made = quantize(model, {"x": images()}, **QUICK).model
    other = 0.9 * constant(model, "weight")
    for feeds in ({"x": images(seed=1)}, {"x": images(seed=1), "weight": other}):
        assert near(model, made, feeds)


# What stays float -----------------------------------------------------------------------------


def test_a_kept_node_stays_float():
    model = network()
    node = next(node for node in model.graph.node if "second" in node.output)
    result = quantize(model, {"x": images()}, keep=[node.name], **QUICK)
    assert {q.operator: (q.count, q.total) for q in result.report.operators}["Conv"] == (1, 2)
    (left,) = result.report.left
    assert left.reason == "it is to stay float"


def test_a_kept_tensor_is_neither_made_nor_read_in_int8():
    result = quantize(network(), {"x": images()}, keep=["second"], **QUICK)
    conv = makers(result.model)["second"]
    assert constant(result.model, conv.input[1]).dtype == np.float32
    readers = [node for node in result.model.graph.node if "second" in node.input]
    assert [node.op_type for node in readers] == ["Relu"]


def test_custom_operators_stay_float():
    model = network()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    for node in model.graph.node:
        if node.op_type == "Relu" and "features" in node.output:
            node.op_type, node.domain = "Gelu", "com.microsoft"
    made = quantize(model, {"x": images()}, **QUICK).model
    assert near(model, made, {"x": images(seed=1)})


# What is refused ------------------------------------------------------------------------------


def test_refuses_a_model_in_which_nothing_can_be_quantized():
    b = Builder()
    b.op("Sin", b.input("n", 3), output="y")
    with pytest.raises(ModelError, match="nothing in it can be quantized"):
        quantize(b.model("y"), {"x": images(4, 1, 1).reshape(4, 1).repeat(3, 1)}, **QUICK)


def test_refuses_a_model_that_is_quantized_already():
    made = quantize(network(), {"x": images()}, **QUICK).model
    with pytest.raises(ModelError, match="it is quantized already: it has DequantizeLinear nodes"):
        quantize(made, {"x": images()}, **QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "best"}, "method 'best' is none of minmax, percentile, entropy"),
        ({"weight_bits": 4}, "weight_bits is 7 or 8, not 4"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"keep": "features"}, "keep takes a list of names"),
        ({"keep": ["nowhere"]}, "no node or tensor is named 'nowhere'"),
        ({"skip": ["nothing"]}, "no rule is named 'nothing'"),
        ({"evaluation": {"x": images(1, 4)}}, "the array 1x4x8x8"),
    ],
)
def test_refuses_options(options, words):
    with pytest.raises(ModelError, match=words):
        quantize(network(), {"x": images()}, **options)


def test_refuses_samples_that_the_model_does_not_run_on():
    b = Builder()
    x = b.input("n", 3, "h", "w")
    t = b.conv(x, 3, 4)
    b.op("Reshape", t, b.constant([1, 4 * 6 * 6]), output="y")
    for is_equalized in (True, False):
        with pytest.raises(OnnxfuseError, match="cannot be reshaped"):
            quantize(b.model("y"), {"x": images(size=9)}, equalize=is_equalized, **QUICK)


def test_refuses_a_sample_that_is_not_finite():
    data = images()
    data[2, 0, 0, 0] = np.inf
    with pytest.raises(ModelError, match="run 2: input 'x' is not finite"):
        quantize(network(), {"x": data}, **QUICK)


def test_the_machine_decides_how_many_bits(monkeypatch):
    for saturating, bits in ((True, 7), (False, 8)):
        monkeypatch.setattr("onnxfuse.quantization.bits.saturates", lambda s=saturating: s)
        report = quantize(network(), {"x": images()}, **QUICK).report
        assert report.weight_bits == bits
        assert "on this machine" in report.weight_bits_reason
    assert operators(quantize(network(), {"x": images()}, weight_bits=8, **QUICK).model)
