"""ConvTransposes in a row become pointwise Convs and one DepthToSpace, where that pays."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, helper

import onnxfuse
from onnxfuse.errors import CertificateError
from onnxfuse.graph import Graph, TensorType
from onnxfuse.rewrites import subpixel
from tests.lift.building import Builder
from tests.lift.comparing import optimized

SIZES = ({"n": 1, "h": 3, "w": 4}, {"n": 2, "h": 1, "w": 5})
C = 6
FLOATS = TensorType(TensorProto.FLOAT, (None,) * 4)


def enlarged(b: Builder, x: str, inputs: int, outputs: int, size: int = 2, **changed) -> str:
    """ConvTranspose with kernel = stride."""
    bias = [] if changed.pop("bias", True) is False else [b.random(outputs)]
    weight = b.random(inputs, outputs, size, changed.pop("width", size))
    given = {"strides": [size, size], **changed}
    return b.op("ConvTranspose", x, weight, *bias, **given)


def start(b: Builder) -> str:
    return b.op("MaxPool", b.input("n", C, "h", "w"), kernel_shape=[1, 1])


def end(b: Builder, x: str) -> str:
    return b.op("MaxPool", x, kernel_shape=[1, 1])


@pytest.mark.parametrize("opset", [7, 11, 13, 18, 22])
@pytest.mark.parametrize(("middle", "bias"), [(32, True), (24, False), (64, True)])
def test_two_in_a_row(opset, middle, bias):
    b = Builder(opset)
    y = b.op("Relu", enlarged(b, start(b), C, middle))
    y = end(b, b.op("Sigmoid", enlarged(b, y, middle, 1, bias=bias)))
    folded = optimized(b.model(y), *SIZES)
    expected = {"MaxPool": 2, "Conv": 2, "Relu": 1, "Sigmoid": 1, "DepthToSpace": 1}
    assert folded.ops == expected
    (fold,) = folded.report.folds
    assert fold.certificate.error < 1e-14
    assert folded.node("DepthToSpace").attribute[0].i == 4


def test_a_larger_block_in_front_of_a_pointwise_layer():
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 32, 3))
    folded = optimized(b.model(end(b, b.conv(y, 32, 1, (1, 1)))), *SIZES)
    assert folded.ops == {"MaxPool": 2, "Conv": 2, "Relu": 1, "DepthToSpace": 1}
    assert folded.node("DepthToSpace").attribute[0].i == 3


def test_pointwise_layers_in_between():
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 32))
    y = b.op("LeakyRelu", b.conv(y, 32, 4, (1, 1)), alpha=0.1)
    y = b.op("Relu", b.conv(y, 4, 2, (1, 1)))
    folded = optimized(b.model(end(b, enlarged(b, y, 2, 1))), *SIZES)
    expected = {"MaxPool": 2, "Conv": 4, "Relu": 2, "LeakyRelu": 1, "DepthToSpace": 1}
    assert folded.ops == expected


def test_a_pointwise_layer_with_few_channels_at_the_end():
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 16))
    folded = optimized(b.model(end(b, b.conv(y, 16, 1, (1, 1)))), *SIZES)
    assert folded.ops == {"MaxPool": 2, "Conv": 2, "Relu": 1, "DepthToSpace": 1}


def test_a_norm_behind_joins_the_last_before():
    b = Builder()
    y = enlarged(b, b.op("Relu", enlarged(b, start(b), C, 24)), 24, 1)
    folded = optimized(b.model(end(b, b.batch_norm(y, 1))), *SIZES)
    assert folded.ops == {"MaxPool": 2, "Conv": 2, "Relu": 1, "DepthToSpace": 1}


def test_numbers_beside_the_image():
    b = Builder()
    y = b.op("Clip", enlarged(b, start(b), C, 24), b.constant(-0.5), b.constant(0.5))
    y = b.op("Max", b.constant(0.1), y)
    folded = optimized(b.model(end(b, enlarged(b, y, 24, 1))), *SIZES)
    assert folded.ops["ConvTranspose"] == 0


def test_the_name_of_an_output_stays():
    b = Builder()
    y = enlarged(b, b.op("Relu", enlarged(b, b.input("n", C, "h", "w"), C, 24)), 24, 1)
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 2, "Relu": 1, "DepthToSpace": 1}


def test_in_a_body():
    inner = Builder(prefix="inner_")
    y = enlarged(inner, inner.op("Relu", enlarged(inner, "x", C, 24)), 24, 1)
    out = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
    then = helper.make_graph(inner.nodes, "then", [], [out], inner.initializers)
    node = helper.make_node("Neg", ["x"], ["other"])
    out = helper.make_tensor_value_info("other", TensorProto.FLOAT, None)
    b = Builder()
    b.input("n", C, "h", "w")
    b.input(name="c", elem_type=TensorProto.BOOL)
    otherwise = helper.make_graph([node], "other", [], [out])
    model = b.model(b.op("If", "c", then_branch=then, else_branch=otherwise))
    x = np.random.default_rng(0).standard_normal((1, C, 3, 4)).astype(np.float32)
    feeds = [{"x": x, "c": np.asarray(choice)} for choice in (True, False)]
    folded = optimized(model, feeds=feeds)
    assert folded.ops == {"If": 1, "Conv": 2, "Relu": 1, "DepthToSpace": 1, "Neg": 1}


def test_what_would_be_wrong_is_an_error(monkeypatch):
    spread = subpixel._spread

    def wrong(one, block):
        weight, bias = spread(one, block)
        return weight[::-1], bias

    monkeypatch.setattr(subpixel, "_spread", wrong)
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 24))
    with pytest.raises(CertificateError, match=r"pointwise Convs for 't_.*differs"):
        onnxfuse.optimize(b.model(end(b, enlarged(b, y, 24, 1))))


def names(node: NodeProto) -> list[str]:
    return [*node.input, *node.output]


# Refused -----------------------------------------------------------------------------------------


def refused(b: Builder, y: str, **options: object) -> None:
    result = onnxfuse.optimize(b.model(end(b, y)), **options)
    assert not any(node.op_type == "DepthToSpace" for node in result.model.graph.node)


def test_refuses_one_alone():
    b = Builder()
    refused(b, b.op("Relu", enlarged(b, start(b), C, 24)))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "changed",
    [
        {"strides": [1, 1]},
        {"strides": [3, 3]},
        {"strides": [2, 1]},
        {"width": 3, "strides": [2, 3]},
        {"pads": [0, 0, 1, 1]},
        {"output_padding": [1, 1]},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER"},
        {"output_shape": [9, 9]},
    ],
)
def test_refuses_other_windows(which, changed):
    b = Builder()
    options = [changed if place == which else {} for place in range(2)]
    y = b.op("Relu", enlarged(b, start(b), C, 24, **options[0]))
    refused(b, enlarged(b, y, 24, 1, **options[1]))


def test_a_scale_in_between_goes_into_the_layer_in_front():
    b = Builder()
    y = b.op("Mul", enlarged(b, start(b), C, 24), b.random(1, 24, 1, 1))
    folded = optimized(b.model(end(b, enlarged(b, b.op("Relu", y), 24, 1))), *SIZES)
    assert folded.ops == {"MaxPool": 2, "Conv": 2, "Relu": 1, "DepthToSpace": 1}


@pytest.mark.parametrize("shape", [(24, 1, 0, 0), (24, 0, 2, 2)])
def test_refuses_weights_without_elements(shape):
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 24))
    strides = [shape[2]] * 2
    y = b.op("ConvTranspose", y, b.constant(np.zeros(shape)), strides=strides)
    model = b.model(y)
    graph = Graph(model.graph, 17, 8, types={name: FLOATS for n in b.nodes for name in names(n)})
    assert subpixel.delay_shuffles(graph, frozenset()).folds == []


def test_refuses_a_bias_that_does_not_fit():
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 24))
    y = b.op("ConvTranspose", y, b.random(24, 1, 2, 2), b.random(2), strides=[2, 2])
    model = b.model(y)
    graph = Graph(model.graph, 17, 8, types={name: FLOATS for n in b.nodes for name in names(n)})
    assert subpixel.delay_shuffles(graph, frozenset()).folds == []


def test_refuses_channels_that_do_not_fit():
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 24))
    refused(b, enlarged(b, y, 23, 1))


def test_refuses_groups():
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 12, group=2))
    refused(b, enlarged(b, y, 24, 1))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 3)])
def test_refuses_layers_that_read_neighbours(kernel):
    b = Builder()
    refused(b, b.conv(b.op("Relu", enlarged(b, start(b), C, 16)), 16, 1, kernel))


def test_refuses_strided_and_padded_layers():
    for given in ({"strides": [2, 2]}, {"pads": [1, 1, 1, 1]}):
        b = Builder()
        y = b.op("Relu", enlarged(b, start(b), C, 16))
        refused(b, b.conv(y, 16, 1, (1, 1), **given))


def test_refuses_more_channels_behind_than_in_front():
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 2))
    refused(b, enlarged(b, y, 2, 8))


def test_refuses_what_somebody_else_reads():
    for seen in range(2):
        b = Builder()
        first = enlarged(b, start(b), C, 24)
        y = b.op("Relu", first)
        last = end(b, enlarged(b, y, 24, 1))
        model = b.model(last, (first, y)[seen])
        optimized_model = onnxfuse.optimize(model).model
        assert "DepthToSpace" not in {node.op_type for node in optimized_model.graph.node}
        b = Builder()
        first = enlarged(b, start(b), C, 24)
        y = b.op("Relu", first)
        refused(b, enlarged(b, y, 24, 1), keep=[(first, y)[seen]])


@pytest.mark.parametrize("skip", ["ConvTranspose", "Relu"])
def test_refuses_operators_that_are_skipped(skip):
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 24))
    refused(b, enlarged(b, y, 24, 1), skip=[skip])


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16])
def test_refuses_types_without_depth_to_space(kind):
    b = Builder(17, kind)
    y = b.op("Relu", enlarged(b, start(b), C, 24))
    refused(b, enlarged(b, y, 24, 1))


def test_refuses_numbers_for_each_channel():
    b = Builder()
    y = b.op("PRelu", enlarged(b, start(b), C, 24), b.random(1, 24, 1, 1))
    refused(b, enlarged(b, y, 24, 1))


@pytest.mark.parametrize("op", ["Log", "Reciprocal"])
def test_refuses_what_makes_no_numbers_of_a_probe(op):
    b = Builder()
    y = b.op(op, b.op("Relu", enlarged(b, start(b), C, 24)))
    model = b.model(end(b, enlarged(b, y, 24, 1)))
    result = onnxfuse.optimize(model)
    assert list(result.model.graph.node) == list(model.graph.node)
    assert "it cannot be certified: it makes what is no number" in {
        refusal.reason for refusal in result.report.refusals
    }


def test_refuses_powers_that_are_computed():
    b = Builder()
    k = b.input(24, 2, 2, name="k", elem_type=TensorProto.INT64)
    y = b.op("Pow", enlarged(b, start(b), C, 24), k)
    refused(b, enlarged(b, y, 24, 1))


def test_refuses_images_of_one_dimension():
    b = Builder()
    x = b.op("MaxPool", b.input("n", C, "h"), kernel_shape=[1])
    y = b.op("Relu", b.op("ConvTranspose", x, b.random(C, 24, 2), strides=[2]))
    y = b.op("ConvTranspose", y, b.random(24, 1, 2), strides=[2])
    result = onnxfuse.optimize(b.model(b.op("MaxPool", y, kernel_shape=[1])))
    assert "DepthToSpace" not in {node.op_type for node in result.model.graph.node}


def test_refuses_weights_that_may_be_overridden():
    b = Builder()
    y = b.op("Relu", enlarged(b, start(b), C, 24))
    model = b.model(end(b, enlarged(b, y, 24, 1)))
    weight = model.graph.node[-2].input[1]
    info = helper.make_tensor_value_info(weight, TensorProto.FLOAT, [24, 1, 2, 2])
    model.graph.input.append(info)
    result = onnxfuse.optimize(model)
    assert "DepthToSpace" not in {node.op_type for node in result.model.graph.node}
