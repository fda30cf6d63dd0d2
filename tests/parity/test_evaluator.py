"""Whole models in float64, against onnx's own evaluator on the same model widened by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxfuse import io
from onnxfuse.parity.evaluator import Evaluator, Unevaluated, random_operator
from tests.lift.building import Builder, same

RNG = np.random.default_rng(0)


def run(model, **feeds):
    return [value[0] for value in Evaluator(io.read(model)).run(feeds)]


def parsed(text):
    return onnx.parser.parse_model(text)


def test_a_small_network_in_float64():
    b = Builder()
    x = b.input(2, 3, 8, 8)
    y = b.op("Relu", b.batch_norm(b.conv(x, 3, 4, pads=same((3, 3))), 4))
    y = b.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = b.op("HardSigmoid", b.op("GlobalAveragePool", y), alpha=0.2, beta=0.5)
    model = b.model(b.op("Softmax", b.op("Flatten", y), axis=1))
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        value = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    image = RNG.standard_normal((2, 3, 8, 8)).astype(np.float32)
    (expected,) = ReferenceEvaluator(wide).run(None, {"x": image.astype(np.float64)})
    (actual,) = run(model, x=image)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_bodies_see_tensors_around_them_and_stay_wide():
    model = parsed(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[n] x, bool c) => (float[n] y) <float[1] third = {0.33333334}> {
            scaled = Mul(x, third)
            y = If (c) <
                then_branch = yes () => (float[n] a) {
                    narrow = Cast <to = 1> (scaled)
                    a = Mul(narrow, third)
                },
                else_branch = no () => (float[n] b) { b = Identity(x) }
            >
        }"""
    )
    x, third = np.array([1.0, 2.0, 3.0], np.float32), float(np.float32(0.33333334))
    (yes,), (no,) = (run(model, x=x, c=np.array(flag)) for flag in (True, False))
    np.testing.assert_array_equal(yes, x.astype(np.float64) * third * third)
    np.testing.assert_array_equal(no, x)


def test_a_loop():
    model = parsed(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[2] x, int64 count, bool go) => (float[2] y) {
            y = Loop (count, go, x) <body = step (int64 i, bool on, float[2] v)
                => (bool on_out, float[2] w) { on_out = Identity(on)  w = Add(v, v) }>
        }"""
    )
    x = np.array([1.0, -3.0], np.float32)
    (y,) = run(model, x=x, count=np.array(3), go=np.array(True))
    np.testing.assert_array_equal(y, 8 * x)


@pytest.mark.parametrize("given", ["count, go", "count,", ",go"])
def test_scan_outputs_of_a_loop_are_stacked(given):
    """Along an axis of their own; scalars too."""
    model = parsed(
        f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[2, 1] x, int64 count, bool go) => (float[2, 1] y, float[r, 2, 1] s, int64[r] t) {{
            y, s, t = Loop ({given}, x) <body = step (int64 i, bool on, float[2, 1] v)
                => (bool less, float[2, 1] w, float[2, 1] u, int64 j) {{
                two = Constant <value = int64 {{2}}> ()
                less = Less(i, two)  w = Add(v, v)  u = Neg(w)  j = Identity(i) }}>
        }}"""
    )
    x = np.array([[1.0], [-3.0]], np.float32)
    y, s, t = run(model, x=x, count=np.array(3), go=np.array(True))
    np.testing.assert_array_equal(y, 8 * x)
    np.testing.assert_array_equal(s, [-2 * x, -4 * x, -8 * x])
    np.testing.assert_array_equal(t, [0, 1, 2])


@pytest.mark.parametrize(
    ("op_type", "opset", "count", "attributes"),
    [
        ("GroupNormalization", 18, 3, {"num_groups": 3}),
        ("GroupNormalization", 21, 6, {"num_groups": 3, "epsilon": 1e-2}),
        ("MeanVarianceNormalization", 13, 0, {"axes": [2, 3]}),
        ("LayerNormalization", 17, 6, {"axis": 1}),
    ],
)
def test_normalizations_against_the_runtime(op_type, opset, count, attributes):
    import onnxruntime as ort

    b = Builder(opset=opset)
    shape = (2, 6, 4, 5)
    weights = [b.random(count), b.random(count)] if count else []
    if op_type == "LayerNormalization":
        weights = [b.random(*shape[1:]), b.random(*shape[1:])]
    model = b.model(b.op(op_type, b.input(*shape), *weights, **attributes))
    image = RNG.standard_normal(shape).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (actual,) = run(model, x=image)
    np.testing.assert_allclose(actual, session.run(None, {"x": image})[0], rtol=1e-4, atol=1e-5)


def test_local_functions_are_entered():
    model = parsed(
        """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[n] x) => (float[n] y) { y = own.twice(x) }
        <domain: "own", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }"""
    )
    (y,) = run(model, x=np.array([1.5], np.float32))
    np.testing.assert_array_equal(y, [3.0])


@pytest.mark.parametrize(
    ("op_type", "opset", "weights", "attributes"),
    [
        ("BatchNormalization", 9, [[0.5] * 4, [0.1] * 4, [0.2] * 4, [2.0] * 4], {}),
        ("ConvTranspose", 17, [np.ones((4, 1, 2, 2))], {"group": 2, "strides": [2, 2]}),
        ("Pad", 17, [[0, 0, -1, 1, 0, 0, 1, 0]], {}),
        ("Pad", 18, [[-1, 1], "", [2]], {}),
        (
            "AveragePool",
            17,
            [],
            {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1], "ceil_mode": 1},
        ),
    ],
)
def test_operators_in_bodies_against_the_runtime(op_type, opset, weights, attributes):
    import onnxruntime as ort

    b = Builder(opset=opset)
    x, flag = b.input(1, 4, "h", "w"), b.input(name="flag", elem_type=TensorProto.BOOL)
    read = [x, *(weight if isinstance(weight, str) else b.constant(weight) for weight in weights)]
    node = helper.make_node(op_type, read, ["inner"], **attributes)
    info = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [None] * 4)
    yes = helper.make_graph([node], "yes", [], [info])
    other = helper.make_tensor_value_info("other", TensorProto.FLOAT, [None] * 4)
    no = helper.make_graph([helper.make_node("Identity", [x], ["other"])], "no", [], [other])
    model = b.model(b.op("If", flag, then_branch=yes, else_branch=no))
    feeds = {"x": RNG.standard_normal((1, 4, 4, 6)).astype(np.float32), "flag": np.array(True)}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (actual,) = run(model, **feeds)
    np.testing.assert_allclose(actual, session.run(None, feeds)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("given", "slope"), [({}, 0.5), ({"slope": 0.25}, 0.25)])
@pytest.mark.parametrize("is_nested", [False, True])
def test_attributes_that_a_call_leaves_out_take_the_default_of_the_function(
    given, slope, is_nested
):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    node = helper.make_node("LeakyRelu", ["a"], ["b"])
    node.attribute.add(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    defaults = [helper.make_attribute("slope", 0.5)]
    functions = [
        helper.make_function("own", "Leak", ["a"], ["b"], [node], opsets, attribute_protos=defaults)
    ]
    call = helper.make_node("Leak", ["a"], ["b"], domain="own", **given)
    if is_nested:
        functions.append(helper.make_function("own", "Outer", ["a"], ["b"], [call], opsets))
        call = helper.make_node("Outer", ["a"], ["b"], domain="own")
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2]) for n in "ab"]
    graph = helper.make_graph([call], "g", infos[:1], infos[1:])
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=9)
    (y,) = run(model, a=np.array([-1.0, 1.0], np.float32))
    np.testing.assert_array_equal(y, [-slope, 1.0])


def test_outputs_that_are_constants_or_inputs():
    b = Builder()
    x = b.input(2)
    b.op("Neg", x, output="y")
    c = b.constant([1.5], "c")
    model = b.model("y", "x", c)
    y, same_x, constant = run(model, x=np.array([1, 2], np.float32))
    np.testing.assert_array_equal(y, [-1, -2])
    np.testing.assert_array_equal(same_x, [1, 2])
    np.testing.assert_array_equal(constant, [1.5])


def test_draws_share_what_they_do_not_change():
    b = Builder()
    x = b.input(1, 3, 6, 6)
    flat = b.op("Relu", x)
    model = b.model(b.conv(flat, 3, 4), b.op("Neg", flat))
    seen = {}

    def watch(node, read, name, value):
        seen[node.op_type] = len(value)
        return value

    image = RNG.standard_normal((1, 3, 6, 6)).astype(np.float32)
    evaluator = Evaluator(io.read(model))
    conv, neg = evaluator.run(
        {"x": image},
        draws=3,
        move=lambda value, name, draw: (1.0 + draw) * value.astype(float),
        watch=watch,
    )
    assert seen == {"Relu": 1, "Conv": 4, "Neg": 1}
    np.testing.assert_allclose(conv[2], 3 * conv[0], rtol=1e-12)
    assert len(neg) == 1


def test_watch_replaces_what_later_nodes_are_given():
    b = Builder()
    x = b.input(3)
    model = b.model(b.op("Neg", b.op("Abs", x, output="inner")))
    evaluator = Evaluator(io.read(model))

    def watch(node, read, name, value):
        return (np.full(3, 7.0),) if name == "inner" else value

    ((y,),) = evaluator.run({"x": np.zeros(3, np.float32)}, watch=watch)
    np.testing.assert_array_equal(y, [-7, -7, -7])


def test_moved_sizes_that_do_not_fit_leave_the_draw_as_it_is():
    b = Builder()
    x = b.input(4)
    size = b.op("Cast", b.constant(np.array([4.1]), "size"), to=TensorProto.INT64)
    model = b.model(b.op("Add", x, b.op("ConstantOfShape", size)))
    ((y, moved),) = Evaluator(io.read(model)).run(
        {"x": np.ones(4, np.float32)}, draws=1, move=lambda value, name, draw: value * 2
    )
    np.testing.assert_array_equal(y, np.ones(4))
    np.testing.assert_array_equal(moved, y)


@pytest.mark.parametrize(
    ("node", "domain", "reason"),
    [
        (
            helper.make_node("FusedGemm", ["x"], ["y"], domain="com.microsoft"),
            "com.microsoft",
            "Fused",
        ),
        (helper.make_node("Reshape", ["x", "shape"], ["y"]), "", "Reshape node 'y'"),
    ],
)
def test_says_what_it_cannot_evaluate(node, domain, reason):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    shape = numpy_helper.from_array(np.array([5, 7]), "shape")
    opsets = [helper.make_opsetid(d, 17 if not d else 1) for d in {"", domain}]
    graph = helper.make_graph([node], "g", [x], [y], [shape])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(Unevaluated, match=reason):
        run(model, x=np.zeros(2, np.float32))


def test_random_operators_are_found_in_bodies_too():
    model = parsed(
        """<ir_version: 8, opset_import: ["": 17]>
        g (bool c) => (float[2] y) {
            y = If (c) <
                then_branch = yes () => (float[2] a) { a = RandomNormal <shape = [2]> () },
                else_branch = no () => (float[2] b) { b = Constant <value = float[2] {1, 2}> () }
            >
        }"""
    )
    assert random_operator(model) == "RandomNormal"
