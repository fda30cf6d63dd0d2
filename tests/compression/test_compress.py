"""What is compressed, what is left alone and why; sizes, errors, budgets."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import models
import onnxfuse
from onnxfuse.compression import OutputError, compress
from tests.compression.building import bodies_model, chain, compressed, picture, reasons
from tests.compression.definition import run_for, weight_by_definition
from tests.lift.building import Builder, same

TRAINED = Path(models.__file__).parent / "trained"
SHIPPED = ("repvgg", "dbb", "mobileone")
SPEC = importlib.util.find_spec("rapidocr_onnxruntime")
assert SPEC is not None, "the test extra installs rapidocr-onnxruntime"
POINTS = 0.5  # of accuracy, that 4 bits may cost


def compressed_without_folds(model, **options):
    return compress(model, fold=False, **options)


# What is stored -----------------------------------------------------------------------------------


def test_all_kinds_of_layers_are_compressed():
    b = Builder(17)
    x = b.conv(b.input(1, 48, 8, 8), 48, 48, pads=same((3, 3)))
    x = b.op("Relu", b.op("ConvTranspose", x, b.random(48, 48, 2, 2), strides=[2, 2]))
    x = b.op("Flatten", b.op("GlobalAveragePool", x))
    x = b.op("Gemm", x, b.random(64, 48), transB=1)
    model = b.model(b.op("MatMul", b.op("Relu", x), b.random(64, 64)))
    result = compressed_without_folds(model)
    assert len(result.report.compressed) == 4
    assert not result.report.left
    assert result.report.opset == (17, 21)
    onnx.checker.check_model(result.model, full_check=True)


def test_biases_and_what_is_no_weight_stay():
    model = chain()
    before = {t.name: t for t in model.graph.initializer}
    after = {t.name: t for t in compressed_without_folds(model).model.graph.initializer}
    kept = set(before) - {"first", "second"}
    assert kept
    assert all(after[name] == before[name] for name in kept)


def test_the_model_given_is_not_changed():
    model = chain(opset=13)
    before = model.SerializeToString(deterministic=True)
    compress(model)
    assert model.SerializeToString(deterministic=True) == before


def test_the_same_bytes_every_time():
    first, second = (compress(chain(opset=13), bits=2, zero_point=True) for _ in range(2))
    assert first.model.SerializeToString() == second.model.SerializeToString()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_compressed_model_is_left_as_it_is(bits):
    once = compress(chain(opset=13), bits=bits, zero_point=True)
    twice = compress(once.model, bits=bits, zero_point=True)
    assert twice.model == once.model
    assert set(reasons(twice).values()) == {"it is in integers already"}
    assert not twice.report.compressed


def test_folding_leaves_compressed_weights_alone():
    once = compress(chain(opset=13))
    assert onnxfuse.optimize(once.model).model == once.model


def test_one_weight_of_several_layers_is_stored_once():
    b = Builder(21)
    x = b.input(1, 48, 6, 6)
    weight = b.random(48, 48, 3, 3, name="w")
    for pads in ([1] * 4, [2, 0, 1, 1]):
        x = b.op("Conv", x, weight, pads=pads)
    result = compressed_without_folds(b.model(x))
    assert list(compressed(result)) == ["w"]
    operators = [node.op_type for node in result.model.graph.node]
    assert operators.count("DequantizeLinear") == 1
    run_for(result.model, [x], picture(), True)


def test_weights_in_bodies_and_those_that_bodies_read():
    result = compressed_without_folds(bodies_model())
    assert set(compressed(result)) == {"inner", "outer"}
    onnx.checker.check_model(result.model, full_check=True)
    for taken in (True, False):
        feeds = {**picture(), "condition": np.array(taken)}
        before, after = (run_for(m, ["y"], feeds, True)[0] for m in (bodies_model(), result.model))
        assert np.linalg.norm(before - after) < 0.2 * np.linalg.norm(before)


def test_external_data(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(chain(opset=13), path, save_as_external_data=True, location="weights.bin")
    result = compress(path)
    assert len(result.report.compressed) == 2
    result.save(tmp_path / "out.onnx")
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    found = ort.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    (expected,) = run_for(compress(chain(opset=13)).model, ["y"], picture(), True)
    assert np.array_equal(found.run(None, picture())[0], expected)


def test_sizes_are_those_of_the_files(tmp_path):
    result = compress(chain(opset=13))
    onnxfuse.optimize(chain(opset=13)).save(tmp_path / "float.onnx")
    result.save(tmp_path / "out.onnx")
    assert result.report.bytes_before == (tmp_path / "float.onnx").stat().st_size
    assert result.report.bytes_after == (tmp_path / "out.onnx").stat().st_size
    assert result.report.ratio == result.report.bytes_before / result.report.bytes_after


@pytest.mark.parametrize(("bits", "ratio"), [(2, 12), (4, 6)])
def test_files_are_that_much_smaller(bits, ratio):
    model = chain(opset=13, channels=128)
    assert compress(model, bits=bits, block=32).report.ratio >= ratio


def test_fourteen_times_smaller():
    assert compress(chain(opset=13, channels=256), bits=2, block=128).report.ratio >= 14


def test_three_bits_take_four_in_the_file():
    three, four = (compress(chain(), bits=bits).report for bits in (3, 4))
    assert three.bytes_after == four.bytes_after
    assert three.compressed[0].snr < four.compressed[0].snr


# What is left alone -------------------------------------------------------------------------------


def test_refuses_a_weight_that_callers_may_override():
    model = chain(list_initializers=True)
    result = compressed_without_folds(model)
    assert set(reasons(result)) == {"first", "second"}
    assert "override" in reasons(result)["first"]
    assert result.model == model


def test_weights_that_are_inputs_before_ir_version_4_are_compressed():
    model = chain(opset=9, ir_version=3, list_initializers=True)
    result = compressed_without_folds(model)
    assert len(result.report.compressed) == 2
    assert [value.name for value in result.model.graph.input] == ["x"]


def test_refuses_a_weight_that_is_a_graph_output():
    model = chain()
    model.graph.output.append(
        helper.make_tensor_value_info("first", TensorProto.FLOAT, [48, 48, 3, 3])
    )
    result = compressed_without_folds(model)
    assert reasons(result) == {"first": "it is a graph output"}
    assert list(compressed(result)) == ["second"]


def test_refuses_a_weight_that_something_else_reads():
    b = Builder(21)
    weight = b.random(48, 48, 3, 3, name="w")
    y = b.op("Conv", b.input(1, 48, 6, 6), weight)
    model = b.model(y, b.op("ReduceSum", weight))
    result = compressed_without_folds(model)
    assert "ReduceSum" in reasons(result)["w"]


def test_refuses_a_weight_that_training_information_names():
    model = chain()
    info = model.training_info.add()
    info.update_binding.add(key="first", value="made")
    assert "training" in reasons(compressed_without_folds(model))["first"]


def test_refuses_other_types():
    result = compressed_without_folds(chain(elem_type=TensorProto.DOUBLE))
    assert set(reasons(result).values()) == {"its type is double"}


def test_refuses_weights_that_would_not_get_smaller():
    b = Builder(21)
    x = b.input(1, 2, 6, 6)
    result = compressed_without_folds(b.model(b.conv(x, 2, 2)))
    (reason,) = reasons(result).values()
    assert reason.startswith("it would take")
    assert result.report.error == "nothing is compressed"


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (1e-40, "too small"), (3.4e38, "too large")],
)
def test_refuses_numbers_that_integers_and_scales_cannot_hold(value, words):
    model = chain()
    tensor = next(t for t in model.graph.initializer if t.name == "first")
    values = numpy_helper.to_array(tensor).copy()
    values[0, :24, 0, 0] = value
    tensor.CopyFrom(numpy_helper.from_array(values, "first"))
    result = compressed_without_folds(model)
    if value == 3.4e38 and "first" in compressed(result):
        assert np.all(np.isfinite(weight_by_definition(result.model, "first")))
    else:
        assert words in reasons(result)["first"]


def test_refuses_a_weight_that_a_constant_node_holds_where_nothing_is_folded():
    b = Builder(21)
    value = numpy_helper.from_array(b.values(48, 48, 3, 3).astype(np.float32))
    model = b.model(b.op("Conv", b.input(1, 48, 6, 6), b.op("Constant", value=value)))
    (reason,) = reasons(compressed_without_folds(model)).values()
    assert "Constant" in reason
    assert len(compress(model).report.compressed) == 1


@pytest.mark.parametrize("name", ["first", "conv_first", "made"])
def test_kept_weights_and_layers_stay(name):
    model = chain()
    node = next(node for node in model.graph.node if "first" in node.input)
    node.name = "conv_first"
    for reader in model.graph.node:
        for index, read in enumerate(reader.input):
            reader.input[index] = "made" if read == node.output[0] else read
    node.output[0] = "made"
    result = compressed_without_folds(model, keep=[name])
    assert reasons(result) == {"first": "it is kept"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 5}, "bits is 5"),
        ({"bits": 4.0}, "bits is 4.0"),
        ({"block": 33}, "block is 33"),
        ({"block": None}, "block is None"),
        ({"scales": "float64"}, "scales is 'float64'"),
        ({"keep": ["nowhere"]}, "no weight and no layer is named 'nowhere'"),
        ({"keep": "first"}, "keep takes a list"),
        ({"budget": 0.1, "bits": 4}, "goes without bits"),
        ({"budget": -1.0}, "no relative error"),
        ({"budget": "0.1"}, "no relative error"),
        ({"samples": []}, "there are no samples"),
        ({"samples": [{"z": np.zeros(1)}]}, "nothing for input 'x'"),
        ({"samples": 3}, "or an iterable, not a int"),
    ],
)
def test_options_that_make_no_sense_are_errors(options, words):
    with pytest.raises(onnxfuse.ModelError, match=words):
        compress(chain(), **options)


def test_refuses_a_model_that_computes_something_else_at_the_newer_opset(monkeypatch):
    module = sys.modules[compress.__module__]
    monkeypatch.setattr(module, "LARGEST_CHANGE", (-1.0, -1.0))
    with pytest.raises(onnxfuse.ModelError, match="raised from opset 13 to 21"):
        compress(chain(opset=13))


# Errors -------------------------------------------------------------------------------------------


def test_the_output_error_is_that_on_the_samples():
    samples = [picture(seed=seed) for seed in (1, 2)]
    result = compress(chain(), samples=samples)
    error = result.report.error
    assert isinstance(error, OutputError)
    before, after = (
        np.array([run_for(m, ["y"], one, True)[0] for one in samples], np.float64)
        for m in (onnxfuse.optimize(chain()).model, result.model)
    )
    expected = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert error.relative_l2 == pytest.approx(expected, rel=1e-3)
    assert error.snr == pytest.approx(-20 * np.log10(expected), rel=1e-3)
    assert (error.samples, error.inputs) == (2, "given")


def test_more_bits_and_smaller_blocks_leave_less():
    found = [compress(chain(), bits=bits).report.error.relative_l2 for bits in (2, 3, 4, 8)]
    assert found == sorted(found, reverse=True)
    wide = chain(channels=128)
    found = [compress(wide, block=block).report.error.relative_l2 for block in (128, 32)]
    assert found[1] < found[0]
    plain, richer = (
        compress(wide, zero_point=on, channel_shift=on).report.error.relative_l2
        for on in (False, True)
    )
    assert richer < plain


def test_a_channel_shift_is_for_channels_with_a_mean():
    model = chain()
    tensor = next(t for t in model.graph.initializer if t.name == "first")
    moved = (
        numpy_helper.to_array(tensor)
        + np.linspace(-3, 3, 48, dtype=np.float32)[:, None, None, None]
    )
    tensor.CopyFrom(numpy_helper.from_array(moved, "first"))
    plain, shifted = (
        compressed(compress(model, channel_shift=on))["first"].snr for on in (False, True)
    )
    assert shifted > plain + 3


def test_says_why_the_error_is_not_measured():
    model = chain()
    model.graph.node.append(helper.make_node("Custom", ["y"], ["z"], domain="com.acme"))
    model.opset_import.append(helper.make_opsetid("com.acme", 1))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    result = compress(model)
    assert len(result.report.compressed) == 2
    assert "cannot load" in result.report.error
    with pytest.raises(onnxfuse.ModelError, match="a budget needs a model that can be run"):
        compress(model, budget=0.1)


# Networks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("options", [{}, {"zero_point": True, "channel_shift": True}])
def test_digits_are_read_as_well_at_four_bits(name, options):
    path = TRAINED / f"{name}_digits.onnx"
    test = np.load(TRAINED / "digits_test.npz")
    result = compress(path, bits=4, **options)
    accuracies = []
    for model in (onnx.load(path), result.model):
        (logits,) = run_for(model, ["logits"], {"image": test["images"]}, True)
        accuracies.append(100 * np.mean(logits.argmax(axis=1) == test["labels"]))
    assert accuracies[1] >= accuracies[0] - POINTS
    onnx.checker.check_model(result.model, full_check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "ch_PP-OCRv4_det_infer",
        pytest.param("ch_PP-OCRv4_rec_infer", marks=pytest.mark.nightly),
        "ch_ppocr_mobile_v2.0_cls_infer",
    ],
)
def test_real_models(name):
    path = Path(SPEC.origin).parent / "models" / f"{name}.onnx"
    results = [compress(path, bits=bits) for bits in (4, 8)]
    for result in results:
        onnx.checker.check_model(result.model, full_check=True)
        assert isinstance(result.report.error, OutputError)
        assert len(result.report.compressed) > 10
    assert results[1].report.error.relative_l2 < results[0].report.error.relative_l2


def test_the_report_as_json():
    report = json.loads(compress(chain()).report.to_json())
    assert [weight["weight"] for weight in report["compressed"]] == ["first", "second"]
    assert report["ratio"] == report["bytes_before"] / report["bytes_after"]
    assert report["error"]["samples"] == 1
