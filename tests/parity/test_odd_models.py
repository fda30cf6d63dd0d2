"""Models that are no image classifiers, and models that differ in other ways than by a fold."""

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


def parsed(text, version=17):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {version}]> {text}')


def outputs(result):
    return {output.output: output for output in result.outputs}


def block(b, x, channels=4):
    wide = b.conv(x, channels, channels, (3, 3), pads=same((3, 3)))
    return b.op("Add", wide, b.conv(x, channels, channels, (1, 1)), output="folded")


def test_nan_on_both_sides_is_agreement():
    model = parsed("g (float[n,4] x) => (float[n,4] y) { zero = Sub(x, x)  y = Div(zero, zero) }")
    found = check(model, model)
    assert found.agrees
    assert all(o.closeness.max_abs == 0 and o.closeness.within == 1 for o in found.outputs)


def test_nan_on_one_side_is_not():
    model = parsed("g (float[n,4] x) => (float[n,4] y) { a = Abs(x)  y = Sqrt(a) }")
    other = parsed("g (float[n,4] x) => (float[n,4] y) { y = Sqrt(x) }")
    found = check(model, other)
    assert not found.agrees
    assert check(other, other).agrees


def test_integer_outputs():
    text = "g (float[n,9] x) => (int64[n,1] y) {{ y = ArgMax <axis = 1> ({}) }}"
    model = parsed(text.format("x"))
    found = check(model, model)
    assert found.agrees
    assert outputs(found)["y"].dtype == "int64"
    negated = parsed("g (float[n,9] x) => (int64[n,1] y) { a = Neg(x)  y = ArgMax <axis = 1> (a) }")
    found = check(model, negated)
    assert not found.agrees
    assert "elements differ" in next(o.reason for o in found.outputs if o.reason)


def test_an_integer_off_in_one_element_differs():
    b = Builder()
    x = b.input(2000, elem_type=TensorProto.INT64)
    add = b.constant(np.zeros(2000, int), "add")
    model = b.model(b.op("Add", x, add, output="y"), types={"y": TensorProto.INT64})
    value = np.zeros(2000, int)
    value[77] = 1
    assert check(model, model).agrees
    assert not check(model, changed(model, add, value)).agrees


def test_several_outputs_and_an_error_in_the_second():
    b = Builder()
    x = b.input("n", 4, 12, 12)
    first = b.op("Relu", b.conv(x, 4, 4))
    model = b.model(
        first, block(b, x), b.op("Shape", first, output="shape"), types={"shape": TensorProto.INT64}
    )
    result = onnxfuse.optimize(model)
    found = check(model, result.model)
    assert found.agrees
    assert set(outputs(found)) == {value.name for value in model.graph.output}
    (conv,) = folded_convs(result)
    found = check(model, bias_off(result.model, conv, 2), bisect=True)
    assert {m.tensor for m in found.meanings if not m.agrees} == {"folded"}
    assert found.divergence.tensor == "folded"
    assert found.divergence.channel == 2


def test_outputs_of_size_zero():
    model = parsed("g (float[n,4] x) => (float[n,0] y) { s, y = Split <axis = 1> (x, sizes) }")
    model.graph.initializer.append(numpy_helper.from_array(np.array([4, 0]), "sizes"))
    found = check(model, model)
    assert found.agrees
    assert {o.shape[1] for o in found.outputs} == {0}


def test_string_inputs_and_outputs():
    model = parsed(
        "g (string[n] x) => (string[n] y, bool[n] z) { y = Identity(x)  z = Equal(x, x) }", 19
    )
    found = check(model, model)
    assert found.agrees
    assert outputs(found)["y"].dtype == "string"


def test_no_inputs_at_all():
    model = parsed("g () => (float[2] y) { y = Constant <value = float[2] {1.5, 2.5}> () }")
    assert check(model, model).agrees


def test_sequences():
    model = parsed(
        "g (float[n,4] x) => (seq(float[n,2]) y) { y = SplitToSequence <axis = 1> (x, two) }"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(2), "two"))
    found = check(model, model)
    assert found.agrees
    assert set(outputs(found)) == {"y[0]", "y[1]"}


def test_token_ids_that_suit_no_index_but_small_ones():
    b = Builder()
    ids = b.input("n", "length", name="ids", elem_type=TensorProto.INT64)
    table = b.random(5, 8)
    model = b.model(b.op("Gather", table, ids))
    assert check(model, model).agrees


def test_random_models_cannot_be_compared():
    model = parsed("g (float[2] x) => (float[2] y) { r = RandomNormalLike(x)  y = Add(x, r) }")
    with pytest.raises(ModelError, match="RandomNormalLike gives other numbers at every run"):
        check(model, model)


def test_other_inputs_and_outputs_cannot_be_compared():
    one = parsed("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    two = parsed("g (float[2] x) => (float[2] y, float[2] z) { y = Neg(x)  z = Abs(x) }")
    with pytest.raises(ModelError, match=r"other outputs: .* has y, .* has y, z"):
        check(one, two)
    with pytest.raises(ModelError, match="is 2 in the first model and 3 in the second"):
        check(one, parsed("g (float[3] x) => (float[3] y) { y = Neg(x) }"))
    with pytest.raises(ModelError, match="of type float32 in the first model and of type int64"):
        check(one, parsed("g (int64[2] x) => (int64[2] y) { y = Neg(x) }"))
    with pytest.raises(ModelError, match="other inputs"):
        check(one, parsed("g (float[2] a, float[2] b) => (float[2] y) { y = Add(a, b) }"))


def test_a_model_that_fixes_what_the_other_leaves_open():
    dynamic = parsed("g (float[n,4,w] x) => (float[n,4,w] y) { y = Neg(x) }")
    fixed = parsed("g (float[2,4,19] image) => (float[2,4,19] out) { out = Neg(image) }")
    found = check(dynamic, fixed)
    assert found.agrees
    assert {o.shape for o in found.outputs} == {(2, 4, 19)}


def test_a_model_that_runs_at_fewer_sizes_differs():
    b = Builder()
    x = b.input("n", 4, "h", "w")
    model = b.model(b.op("Flatten", x, axis=2))
    b = Builder()
    x = b.input("n", 4, "h", "w")
    shape = b.constant(np.array([-1, 4, 64 * 64]))
    other = b.model(b.op("Flatten", b.op("Reshape", x, shape), axis=2))
    found = check(model, other)
    assert not found.agrees
    assert any("cannot" in o.reason or "Reshape" in o.reason for o in found.outputs)


def test_renamed_throughout():
    b = Builder()
    x = b.input("n", 4, 10, 10)
    y = x
    for _ in range(3):
        wide = b.conv(y, 4, 4, (3, 3), pads=same((3, 3)))
        y = b.op("Relu", b.op("Add", wide, b.conv(y, 4, 4, (1, 1))))
    model = b.model(y)
    result = onnxfuse.optimize(model)
    second = folded_convs(result)[1]

    def renamed(broken):
        known = {t.name for t in broken.graph.initializer} | {"x"}
        for node in broken.graph.node:
            node.input[:] = [n if n in known else f"other/{n}" for n in node.input]
            node.output[:] = [f"other/{n}" for n in node.output]
        broken.graph.output[0].name = f"other/{broken.graph.output[0].name}"
        return broken

    assert check(
        model,
        renamed(
            changed(
                result.model,
                second.input[2],
                numpy_helper.to_array(initializer(result.model, second.input[2])),
            )
        ),
    ).agrees
    found = check(model, renamed(bias_off(result.model, second, 3)), bisect=True)
    assert not found.agrees
    assert found.divergence.tensor == f"other/{second.output[0]}"
    assert found.divergence.counterpart == second.output[0]
    assert found.divergence.channel == 3


def test_a_name_used_for_something_else_is_no_error():
    """Other tools give the folded Conv the name of the Conv before the BatchNormalization."""
    b = Builder()
    x = b.input("n", 3, 9, 9)
    scaled = b.batch_norm(b.conv(x, 3, 4, output="conv"), 4, output="scaled")
    model = b.model(b.op("Relu", scaled))
    other = onnxfuse.optimize(model).model
    for node in other.graph.node:
        node.input[:] = ["conv" if n == "scaled" else n for n in node.input]
        node.output[:] = ["conv" if n == "scaled" else n for n in node.output]
    assert check(model, other).agrees


def test_an_error_that_a_later_node_hides():
    """Sigmoid is flat where its input is large: the output hides what the tensor before shows."""
    b = Builder()
    x = b.input("n", 4, 8, 8)
    y = b.op("Add", block(b, x), b.constant(np.array(40.0)))
    model = b.model(b.op("Sigmoid", y))
    result = onnxfuse.optimize(model, keep=["folded"])
    (conv,) = folded_convs(result)
    found = check(model, bias_off(result.model, conv, 1), bisect=True)
    assert not found.agrees
    assert found.divergence.tensor == "folded"


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_floating_types(kind):
    b = Builder(elem_type=kind)
    x = b.input("n", 4, 10, 10)
    y = b.batch_norm(b.op("Relu", b.batch_norm(x, 4)), 4)
    model = b.model(b.op("Flatten", y), b.op("MatMul", b.op("Flatten", x), b.random(400, 5)))
    found = check(model)
    assert found.agrees
    weight = next(t for t in model.graph.initializer if list(t.dims) == [400, 5])
    value = numpy_helper.to_array(weight).copy()
    value[:, 2] *= 1.02 if kind == TensorProto.FLOAT16 else 1 + 1e-9
    assert not check(model, changed(model, weight.name, value)).agrees


def test_half_precision_copy_of_a_model():
    b = Builder()
    x = b.input("n", 8, name="x")
    y = b.op("Relu", b.op("MatMul", x, b.random(8, 8)))
    model = b.model(b.op("MatMul", y, b.random(8, 4)))
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for tensor in half.graph.initializer:
        value = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    nodes = list(half.graph.node)
    del half.graph.node[:]
    half.graph.node.append(helper.make_node("Cast", ["x"], ["narrow"], to=TensorProto.FLOAT16))
    for node in nodes:
        node.input[:] = ["narrow" if name == "x" else name for name in node.input]
        node.output[:] = ["last" if name == nodes[-1].output[0] else name for name in node.output]
        half.graph.node.append(node)
    name = half.graph.output[0].name
    half.graph.node.append(helper.make_node("Cast", ["last"], [name], to=TensorProto.FLOAT))
    assert check(model, half).agrees
    weight = half.graph.initializer[0]
    value = numpy_helper.to_array(weight).copy()
    value[3] *= np.float16(1.05)
    assert not check(model, changed(half, weight.name, value)).agrees


def test_an_operator_without_a_float64_evaluation():
    """The truth is then the first model, as the runtime computes it without its optimizer."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in (("w", (6, 4)), ("b", (4,)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("BiasGelu", ["product", "b"], ["y"], domain="com.microsoft"),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    found = check(model, model)
    assert found.agrees
    assert "BiasGelu" in found.truth
    assert found.meanings == ()
    bias = numpy_helper.to_array(weights[1]).copy()
    bias[2] += 1e-3
    found = check(model, changed(model, "b", bias), bisect=True)
    assert not found.agrees


def test_an_error_of_the_runtime_alone_is_found_by_running(monkeypatch):
    """The models mean the same; a runtime that computes one tensor wrong is told from rounding."""
    from onnxfuse.runtime.session import Session

    b = Builder()
    x = b.input("n", 4, 10, 10)
    inner = b.op("Relu", block(b, x), output="inner")
    model = b.model(b.conv(inner, 4, 4, output="last"))
    result = onnxfuse.optimize(model)
    right = Session.run

    def wrong(self, feeds, outputs=None):
        made = right(self, feeds, outputs)
        if "optimized" not in self.name:
            return made
        names = outputs or [value.name for value in self.raw.get_outputs()]
        return [
            m + np.float32(0.01) if n in ("inner", "last") else m
            for n, m in zip(names, made, strict=True)
        ]

    monkeypatch.setattr(Session, "run", wrong)
    found = check(model, bisect=True)
    assert not found.agrees
    assert all(meaning.agrees for meaning in found.meanings)
    assert (found.divergence.tensor, found.divergence.provider) == ("inner", "cpu")
    assert result.model.graph.node


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_a_model_that_the_runtime_has_optimized(tmp_path, level):
    """What it writes holds operators of its own, which nobody evaluates in float64."""
    import onnxruntime as ort

    b = Builder()
    x = b.input("n", 4, 10, 10)
    y = b.op("Relu", b.batch_norm(b.conv(x, 4, 8, pads=same((3, 3)), output="conv"), 8))
    model = b.model(b.op("Flatten", b.op("GlobalAveragePool", b.op("Relu", b.conv(y, 8, 16)))))
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    found = check(model, tmp_path / "optimized.onnx")
    assert found.agrees, found
    assert found.truth == "float64"
    own = level != "ORT_ENABLE_BASIC"
    assert bool(found.meanings) != own
    assert any("judged as it runs" in note for note in found.notes) == own
    other = onnx.load(tmp_path / "optimized.onnx")
    bias = next(t for t in other.graph.initializer if list(t.dims) == [16])
    value = numpy_helper.to_array(bias).copy()
    value[3] += 1e-2
    assert not check(model, changed(other, bias.name, value)).agrees


def test_sizes_at_which_outputs_are_empty_are_not_chosen():
    b = Builder()
    x = b.input("n", 3, "h", "w")
    y = b.op("AveragePool", x, kernel_shape=[70, 70])
    found = check(b.model(y))
    assert found.agrees
    assert all(np.prod(output.shape) for output in found.outputs)


def test_the_runtime_is_believed_where_it_reads_an_operator_differently(monkeypatch):
    """The evaluation of Relu is made wrong: what ran is compared then, and is still told apart."""
    from onnxfuse import reference

    model = parsed("g (float[n,9] x) => (float[n,9] y) { a = Relu(x)  y = Mul(a, third) }")
    model.graph.initializer.append(numpy_helper.from_array(np.float32([1 / 3] * 9), "third"))
    monkeypatch.setitem(reference._OPERATORS, "Relu", lambda call: np.abs(call.inputs[0]) + 2)
    assert check(model, model).agrees
    value = np.float32([1 / 3] * 8 + [0.34])
    assert not check(model, changed(model, "third", value)).agrees


def test_constants_in_nodes_are_weights_too():
    """A model without a float64 evaluation, whose weights are not initializers."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node(
            "Constant",
            [],
            [name],
            value=numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32)),
        )
        for name, shape in (("w", (6, 4)), ("b", (4,)))
    ]
    nodes.append(helper.make_node("MatMul", ["x", "w"], ["product"]))
    nodes.append(helper.make_node("BiasGelu", ["product", "b"], ["y"], domain="com.microsoft"))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=opsets, ir_version=8
    )
    found = check(model, model)
    assert found.agrees
    assert all(output.bound > 0 for output in found.outputs)


@pytest.mark.parametrize("kind", ["InstanceNormalization", "GroupNormalization"])
def test_flat_maps_magnify_what_a_mean_rounds(kind):
    """Zeros and constants: what is left of x - mean(x) is rounding, over sqrt(epsilon)."""
    b = Builder(opset=21)
    x = b.input("n", 8, "h", "w")
    y = b.op("Mul", x, b.constant(np.float32([[[1234.567]]])))
    groups = {"num_groups": 2} if kind == "GroupNormalization" else {}
    y = b.op(kind, b.op("Tanh", y), b.random(8), b.random(8), **groups)
    flat = b.op("GlobalAveragePool", y)
    model = b.model(flat)
    b = Builder(opset=21)
    x = b.input("n", 8, "h", "w")
    one = np.float32(1234.567)
    y = b.op("Mul", x, b.constant(np.full((1, 8, 1, 1), one)))
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer[1:]]
    y = b.op(kind, b.op("Tanh", y), *map(b.constant, weights), **groups)
    assert check(model, b.model(b.op("ReduceMean", y, b.constant(np.array([2, 3]))))).agrees


def test_rounding_in_the_second_model_alone_is_rounding():
    """A BatchNormalization subtracts a large mean, which its fold does not."""
    rng = np.random.default_rng(0)
    b = Builder()
    x = b.input("n", 4, "h", "w")
    y = b.op("Conv", x, b.random(4, 4, 3, 3), b.constant(1e4 * rng.standard_normal(4)), output="c")
    mean = numpy_helper.to_array(b.initializers[-1]) + rng.standard_normal(4)
    scale, shift = b.random(4), b.random(4)
    variance = b.positive(4)
    model = b.model(
        b.op("BatchNormalization", y, scale, shift, b.constant(mean), variance, output="y")
    )
    assert check(onnxfuse.optimize(model).model, model).agrees
