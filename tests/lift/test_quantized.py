"""Models that hold integers already: what the runtime does with them stays as it is."""

from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

import onnxfuse
from tests.lift.building import Builder, same

ROOT = Path(__file__).parents[2]
TRAINED = ROOT / "models" / "trained"
INTEGER = ("QLinear", "QGemm", "QuantizeLinear", "DequantizeLinear", "MatMulInteger", "ConvInteger")


class Digits(CalibrationDataReader):
    """Some of the images that the trained networks are tested on."""

    def __init__(self, name):
        images = np.load(TRAINED / "digits_test.npz")["images"]
        self.batches = iter([{name: images[:64].astype(np.float32)}])

    def get_next(self):
        return next(self.batches, None)


def run_by_runtime(model, folder, feeds):
    """Operators that are left when ONNX Runtime has optimized a model, and its outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "as_it_runs.onnx")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    made = onnx.load(options.optimized_model_filepath).graph.node
    return Counter(node.op_type for node in made), session.run(None, feeds)


def integers(operators):
    return {name: count for name, count in operators.items() if name.startswith(INTEGER)}


def size(model):
    return model.ByteSize()


@pytest.mark.parametrize("kind", [QuantType.QUInt8, QuantType.QInt8], ids=["uint8", "int8"])
@pytest.mark.parametrize("form", ["training", "folded"])
@pytest.mark.parametrize("network", ["repvgg", "mobileone"])
def test_pairs_of_quantize_and_dequantize_stay_where_they_are(network, form, kind, tmp_path):
    path = TRAINED / f"{network}_digits.onnx"
    if form == "folded":
        onnxfuse.optimize(path).save(tmp_path / "folded.onnx")
        path = tmp_path / "folded.onnx"
    (name,) = (given.name for given in onnx.load(path).graph.input)
    target = tmp_path / "int8.onnx"
    given = {"activation_type": kind, "weight_type": QuantType.QInt8, "per_channel": True}
    quantize_static(path, target, Digits(name), **given)
    model = onnx.load(target)
    result = onnxfuse.optimize(target).model
    feeds = Digits(name).get_next()
    before, expected = run_by_runtime(model, tmp_path, feeds)
    after, actual = run_by_runtime(result, tmp_path, feeds)
    assert integers(after) == integers(before)
    assert sum(after.values()) <= sum(before.values())
    assert size(result) <= size(model)
    np.testing.assert_array_equal(actual, expected)


# Weights in few bits ----------------------------------------------------------------------------

CODES = {
    "int2": (ml_dtypes.int2, TensorProto.INT2),
    "int4": (ml_dtypes.int4, TensorProto.INT4),
    "int8": (np.int8, TensorProto.INT8),
}


def stored(b, kind, *shape, block=4, half=False):
    """A weight in few bits with a scale for each block of inputs: the tensor that it stands for."""
    dtype, elem_type = CODES[kind]
    limits = ml_dtypes.iinfo(dtype) if kind != "int8" else np.iinfo(dtype)
    codes = b.rng.integers(limits.min, limits.max + 1, shape)
    scale = b.rng.uniform(0.01, 0.2, (shape[0], -(-shape[1] // block), *shape[2:]))
    if half:
        name = b.constant(scale, elem_type=TensorProto.FLOAT16)
        scales = b.op("Cast", name, to=TensorProto.FLOAT)
    else:
        scales = b.constant(scale)
    weight = b.constant(codes, elem_type=elem_type)
    return b.op("DequantizeLinear", weight, scales, axis=1, block_size=block)


def opset(kind):
    return 25 if kind == "int2" else 21


def model_of(b, *outputs):
    return b.model(*outputs, ir_version=13 if b.opset == 25 else 10)


def operators(model):
    return [node.op_type for node in model.graph.node]


def assert_stays(model, shape=(2, 8, 6, 6)):
    """Optimizes a model, whose weights in few bits stay, and which does not grow."""
    result = onnxfuse.optimize(model).model
    assert size(result) <= size(model)
    narrow = [TensorProto.INT2, TensorProto.INT4, TensorProto.INT8, TensorProto.FLOAT16]
    for kind in narrow:
        before, after = (
            sum(t.data_type == kind for t in m.graph.initializer) for m in (model, result)
        )
        assert after == before
    feeds = {"x": np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    expected, actual = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, feeds)
        for m in (model, result)
    )
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2**-18 * np.abs(theirs).max())
    return result


@pytest.mark.parametrize("behind", ["", "Mul", "Add", "Reshape", "Transpose", "Relu"])
@pytest.mark.parametrize("half", [False, True], ids=["float32 scale", "float16 scale"])
@pytest.mark.parametrize("kind", CODES)
def test_a_weight_in_few_bits_stays(kind, half, behind):
    b = Builder(opset=opset(kind))
    x = b.input("n", 8, "h", "w")
    weight = stored(b, kind, 8, 8, 3, 3, half=half)
    if behind == "Transpose":
        weight = b.op("Transpose", weight, perm=[1, 0, 2, 3])
    elif behind == "Reshape":
        weight = b.op("Reshape", weight, b.constant([8, 8, 3, 3]))
    elif behind == "Relu":
        weight = b.op("Relu", weight)
    elif behind:
        weight = b.op(behind, weight, b.random(8, 1, 1, 1))
    y = b.op("Conv", x, weight, b.random(8), pads=same((3, 3)))
    result = assert_stays(model_of(b, b.batch_norm(b.op("Relu", y), 8)))
    assert "DequantizeLinear" in operators(result)
    assert ("Cast" in operators(result)) == half


def test_a_weight_in_few_bits_that_two_layers_read_stays():
    b = Builder(opset=21)
    x = b.input("n", 8, "h", "w")
    weight = stored(b, "int4", 8, 8, 1, 1)
    y = b.op("Add", b.op("Conv", x, weight), b.op("Conv", b.op("Relu", x), weight))
    assert operators(assert_stays(model_of(b, y))).count("DequantizeLinear") == 1


def test_a_weight_in_few_bits_that_is_an_output_stays():
    b = Builder(opset=21)
    x = b.input("n", 8, "h", "w")
    weight = stored(b, "int4", 8, 8, 1, 1, half=True)
    assert_stays(model_of(b, b.op("Conv", x, weight), weight))


def test_a_shift_in_few_bits_stays():
    b = Builder(opset=21)
    x = b.input("n", 8, "h", "w")
    y = b.conv(x, 8, 8, pads=same((3, 3)))
    codes = b.constant(b.rng.integers(-128, 128, (1, 8, 1, 1)), elem_type=TensorProto.INT8)
    shift = b.op("DequantizeLinear", codes, b.constant(0.02))
    result = assert_stays(model_of(b, b.op("Add", b.batch_norm(y, 8), shift)))
    assert sorted(operators(result)) == ["Add", "Conv", "DequantizeLinear"]


def test_a_matrix_in_few_bits_behind_windows_gathered_by_hand_stays():
    b = Builder(opset=21)
    x = b.input(2, 8, 6, 6)
    columns = b.op("Reshape", b.op("Transpose", x, perm=[0, 2, 3, 1]), b.constant([72, 8]))
    weight = b.op("Transpose", stored(b, "int4", 8, 8), perm=[1, 0])
    rows = b.op("Reshape", b.op("MatMul", columns, weight), b.constant([2, 6, 6, 8]))
    y = b.batch_norm(b.op("Transpose", rows, perm=[0, 3, 1, 2]), 8)
    assert "DequantizeLinear" in operators(assert_stays(model_of(b, y)))


def test_a_layer_beside_weights_in_few_bits_folds():
    b = Builder(opset=21)
    x = b.input("n", 8, "h", "w")
    y = b.op("Add", b.conv(x, 8, 8, pads=same((3, 3))), b.conv(x, 8, 8, (1, 1)))
    z = b.op("Conv", b.op("Relu", y), stored(b, "int4", 8, 8, 1, 1, half=True))
    assert operators(assert_stays(model_of(b, z))).count("Conv") == 2
