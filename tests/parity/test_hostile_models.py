"""What a hostile tester found: names, scales, quantization, bodies, files."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxfuse
from onnxfuse import ModelError
from tests.lift.building import Builder, same
from tests.parity.breaking import bias_off, changed, folded_convs, initializer


def check(first, second=None, **options):
    return onnxfuse.check(first, second, threads=1, **options)


def renamed_tensor(model, old, new):
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    return model


def almost_identity(by):
    """A Conv and a BatchNormalization that changes little, as at the start of a training."""
    b = Builder()
    x = b.input("n", 3, 9, 9)
    conv = b.conv(x, 3, 4, output="conv")
    ones, zeros = np.ones(4), np.zeros(4)
    statistics = [b.constant(1 + by * ones), b.constant(zeros), b.constant(zeros), b.constant(ones)]
    scaled = b.op("BatchNormalization", conv, *statistics, output="scaled")
    return b.model(b.op("Relu", scaled))


@pytest.mark.parametrize("by", [0.0, 1e-5, 3e-3])
def test_the_name_of_a_tensor_that_is_almost_the_same(by):
    """onnxsim and onnxoptimizer give the folded Conv the name of the Conv before."""
    model = almost_identity(by)
    result = onnxfuse.optimize(model)
    other = renamed_tensor(result.model, "scaled", "conv")
    assert check(model, other).agrees
    (conv,) = [node for node in other.graph.node if node.op_type == "Conv"]
    found = check(model, bias_off(other, conv, 2), bisect=True)
    assert not found.agrees
    assert (found.divergence.tensor, found.divergence.channel) == ("conv", 2)


def test_a_small_channel_beside_a_huge_one():
    b = Builder()
    x = b.input("n", 4, 9, 9)
    weight = b.values(8, 4, 3, 3)
    weight[0] *= 1e6
    y = b.op("Conv", x, b.constant(weight, "weight"), pads=same((3, 3)), output="y")
    model = b.model(b.op("Relu", y))
    assert check(model, model).agrees
    wrong = weight.copy()
    wrong[3] *= 1 + 1e-4
    found = check(model, changed(model, "weight", wrong), bisect=True)
    assert not found.agrees
    assert found.divergence.channel == 3


def test_random_numbers_in_a_local_function():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[4] x) => (float[4] y) { y = own.noisy(x) }
        <domain: "own", opset_import: ["": 17]>
        noisy (a) => (b) { r = RandomUniformLike(a)  b = Add(a, r) }"""
    )
    with pytest.raises(ModelError, match="RandomUniformLike"):
        check(model, model)


def quantized(opset, step):
    """Conv with QuantizeLinear and DequantizeLinear around it, its weight in int8."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-100, 100, (4, 3, 3, 3)).astype(np.int8)
    weight[2, 1, 1, 1] += step
    scales = (0.01 + 0.01 * rng.random(4)).astype(np.float32)
    tensors = {
        "xs": np.float32(0.03),
        "xz": np.uint8(120),
        "w": weight,
        "ws": scales,
        "wz": np.zeros(4, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "xs", "xz"], ["dx"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["dw"], axis=0),
        helper.make_node("Conv", ["dx", "dw"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize("opset", [13, 17, 19])
def test_quantized_models_at_every_opset(opset):
    model = quantized(opset, 0)
    found = check(model, model)
    assert (found.agrees, found.truth) == (True, "float64")
    assert not check(model, quantized(opset, 1)).agrees


def test_an_index_that_a_rounding_moves_out_of_range():
    b = Builder()
    x = b.input("n", 5)
    index = b.op(
        "Mul", b.op("Sigmoid", b.op("Mul", x, b.constant(np.array(50.0)))), b.constant(99.99999)
    )
    y = b.op("Gather", b.random(100), b.op("Cast", index, to=TensorProto.INT64))
    model = b.model(y)
    assert check(model, model).agrees


def test_weights_inside_a_body():
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n,4] x) => (float[n,4] y) {
            low = Constant <value = float {-100.0}> ()
            mean = ReduceMean <keepdims = 0> (x)
            c = Greater(mean, low)
            y = If (c) <
                then_branch = yes () => (float[n,4] a) <float[4] w = {0.1, 0.7, 0.3, 1.1}> {
                    a = Mul(x, w)
                },
                else_branch = no () => (float[n,4] b) { b = Identity(x) }
            >
        }"""
    )
    found = check(model, model)
    assert (found.agrees, found.truth) == (True, "float64")
    other = onnx.ModelProto()
    other.CopyFrom(model)
    body = next(node for node in other.graph.node if node.op_type == "If").attribute[0].g
    value = np.float32([0.1, 0.7, 0.3 * (1 + 1e-4), 1.1])
    body.initializer[0].CopyFrom(numpy_helper.from_array(value, "w"))
    assert not check(model, other).agrees


def test_an_input_that_is_a_shape():
    b = Builder()
    x = b.input(1, 1, 1, 3)
    shape = b.input(4, name="shape", elem_type=TensorProto.INT64)
    model = b.model(b.op("Expand", b.op("Tile", x, b.constant([1, 1, 1, 1])), shape))
    one = onnxfuse.check(model, model, threads=1)
    assert one.agrees
    assert max(np.prod(output.shape) for output in one.outputs) <= 3**4


def test_elements_too_many_for_the_evaluator_are_left_to_the_runtime():
    b = Builder(opset=20)
    x, grid = b.input(1, 4, 64, 64), b.input(1, 64, 64, 2, name="grid")
    model = b.model(b.op("GridSample", x, grid))
    found = check(model, model)
    assert found.agrees
    assert "too long" in found.truth


def test_a_label_map_whose_scores_have_other_names():
    b = Builder()
    x = b.input("n", 4, 12, 12)
    wide = b.conv(x, 4, 6, (3, 3), pads=same((3, 3)))
    y = b.op("Add", wide, b.conv(x, 4, 6, (1, 1)), output="scores")
    model = b.model(b.op("ArgMax", y, axis=1, output="labels"), types={"labels": TensorProto.INT64})
    result = onnxfuse.optimize(model)
    (conv,) = folded_convs(result)
    wrong = bias_off(result.model, conv, 1)
    found = check(model, renamed_tensor(wrong, "scores", "other"), bisect=True)
    assert not found.agrees
    assert found.divergence.tensor == "other"
    assert initializer(wrong, conv.input[2]).name


def test_no_outputs_and_types_that_the_runtime_does_not_take():
    b = Builder()
    model = b.model(b.op("Neg", b.input(2), output="y"))
    del model.graph.output[:]
    with pytest.raises(ModelError):
        check(model, model)
    b = Builder(elem_type=TensorProto.BFLOAT16)
    model = b.model(b.op("Identity", b.input(2)))
    with pytest.raises(ModelError, match="is bfloat16, which ONNX Runtime's Python interface"):
        check(model, model)


def test_a_size_that_the_second_model_has_fixed_otherwise():
    head = '<ir_version: 8, opset_import: ["": 17]>'
    text = head + " g (float[{0}] x) => (float[{0}] y) {{ y = Neg(x) }}"
    dynamic, fixed = (onnx.parser.parse_model(text.format(extent)) for extent in ("n", 5))
    with pytest.raises(ModelError, match="size n=3: the second model has fixed it at 5"):
        check(dynamic, fixed, sizes={"n": 3})
    assert check(dynamic, fixed, sizes={"n": 5}).agrees


@pytest.fixture
def external(tmp_path, monkeypatch):
    """A model whose weights are in a file beside it."""
    b = Builder()
    x = b.input("n", 512)
    model = b.model(b.op("MatMul", x, b.random(512, 8)))
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin")
    folder = tmp_path / "data"
    folder.mkdir()
    array = numpy_helper.from_array(np.ones((2, 512), np.float32))
    (folder / "input_0.pb").write_bytes(array.SerializeToString())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("option", ["--json", "--report"])
@pytest.mark.parametrize("target", ["weights.bin", "data/input_0.pb", "model.onnx"])
@pytest.mark.parametrize("command", ["check", "bench"])
def test_no_file_that_belongs_to_an_input_is_replaced(external, capfd, command, target, option):
    from onnxfuse.cli import main

    before = (external / target).read_bytes()
    arguments = [command, "model.onnx", "--inputs", "data", option, target, "--quiet"]
    with pytest.raises(SystemExit) as stop:
        main.main(args=arguments, prog_name="onnxfuse")
    assert stop.value.code == 2
    assert "is an input file" in capfd.readouterr().err
    assert (external / target).read_bytes() == before
