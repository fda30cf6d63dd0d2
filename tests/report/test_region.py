"""What a fold keeps of the nodes that it replaced, and how that is drawn."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxfuse
from onnxfuse.report.html.region import after, before
from tests.handmade import build, value
from tests.report.building import two_branches

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def fold():
    (made,) = onnxfuse.optimize(two_branches()).report.folds
    return made


def test_the_wiring_of_the_replaced_nodes(fold):
    assert [name for name, _ in fold.replaced] == ["first", "second", "sum"]
    first, second, total = fold.before
    assert first.inputs == ("x",)
    assert first.constants == ("wide",)
    assert first.outputs == ("a",)
    assert first.shape == (1, 4, 8, 8)
    assert first.settings == "3x3, 4 -> 4, pads 1"
    assert second.settings == "1x1, 4 -> 4"
    assert total.inputs == ("a", "b")
    assert total.input_shapes == ((1, 4, 8, 8),) * 2
    assert total.constants == ()


def test_the_wiring_of_what_took_their_place(fold):
    (conv,) = fold.after
    assert conv.inputs == ("x",)
    assert conv.outputs == ("c",)
    assert conv.constants[0] == "c.weight"
    assert conv.settings == "3x3, 4 -> 4, pads 1"


def test_it_is_part_of_the_json():
    report = json.loads(onnxfuse.optimize(two_branches()).report.to_json())
    assert report["folds"][0]["before"][2]["inputs"] == ["a", "b"]
    assert report["folds"][0]["after"][0]["constants"][0] == "c.weight"


def test_what_is_drawn(fold):
    drawn = before(fold)
    assert [box.title for box in drawn.boxes] == ["x", "Conv", "Conv", "Add", "c"]
    assert set(drawn.edges) == {(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)}
    assert drawn.boxes[0].lines == ("1x4x8x8",)
    assert drawn.boxes[1].lines == ("3x3, 4 → 4, pads 1",)
    assert drawn.boxes[1].tip == "first\nConv\n3x3, 4 -> 4, pads 1\n1x4x8x8"
    made = after(fold)
    assert [box.title for box in made.boxes] == ["x", "Conv", "c"]
    assert made.edges == ((0, 1), (1, 2))


def drawn_settings(nodes, weights, shape):
    model = build(nodes, [value("x", shape)], weights=weights)
    folds = onnxfuse.optimize(model).report.folds
    return [wired.settings for fold in folds for wired in fold.before]


def floats(name, *shape):
    numbers = np.random.default_rng(3).uniform(0.5, 1.5, shape).astype(np.float32)
    return numpy_helper.from_array(numbers, name)


def test_settings_of_other_operators():
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["t"], strides=[2, 2], group=2),
        helper.make_node("BatchNormalization", ["t", "s", "s", "s", "s"], ["n"]),
        helper.make_node("Mul", ["n", "scale"], ["m"]),
        helper.make_node("Mul", ["m", "one"], ["y"]),
    ]
    weights = [floats("w", 4, 3, 2, 2), floats("s", 6), floats("scale", 6, 1, 1), floats("one")]
    assert drawn_settings(nodes, weights, (1, 4, 8, 8)) == [
        "2x2, 4 -> 6, groups 2, stride 2x2",
        "6 channels",
        "constant 6x1x1",
        "scalar",
    ]


def test_settings_of_products_and_poolings():
    product = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
        helper.make_node("Transpose", ["y"], ["t"], perm=[0, 2, 1]),
        helper.make_node("BatchNormalization", ["t", "b", "b", "b", "b"], ["z"]),
    ]
    model = build(
        product, [value("x", (2, 5, 3))], ["z"], weights=[floats("w", 3, 4), floats("b", 4)]
    )
    (fold,) = onnxfuse.optimize(model).report.folds
    settings = ["by 3x4", "vector of 4", "order 0,2,1", "4 channels"]
    assert [wired.settings for wired in fold.before] == settings
    pooled = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p", "w"], ["q"], dilations=[2, 2], pads=[0, 1, 2, 3]),
        helper.make_node("BatchNormalization", ["q", "s", "s", "s", "s"], ["y"]),
    ]
    weights = [floats("w", 4, 4, 2, 2), floats("s", 4)]
    settings = drawn_settings(pooled, weights, (1, 4, 16, 16))
    assert "2x2, 4 -> 4, dilation 2x2, pads 0,1,2,3" in settings


def test_symbols_that_are_long_are_left_out_of_the_drawing():
    model = two_branches()
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param, dims[2].dim_param = "batch", "p2o.DynamicDimension.1"
    del model.graph.value_info[:]
    (fold,) = onnxfuse.optimize(model).report.folds
    assert before(fold).boxes[0].lines == ("batchx4x?x8",)
    assert before(fold).boxes[0].tip == "x batchx4xp2o.DynamicDimension.1x8"


def test_a_fold_into_nothing():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Mul", ["r", "two"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["n"]),
        helper.make_node("Relu", ["n"], ["y"]),
    ]
    halves = [
        numpy_helper.from_array(np.array(n, np.float32), name)
        for n, name in ((2, "two"), (0.5, "half"))
    ]
    model = build(nodes, [value("x", (1, 4, 8, 8))], weights=halves)
    folds = onnxfuse.optimize(model).report.folds
    for fold in (fold for fold in folds if not fold.nodes):
        assert [box.kind for box in after(fold).boxes] == ["tensor", "tensor"]
        assert after(fold).edges == ((0, 1),)


def test_every_node_of_a_trained_network_has_a_wiring(zoo_model):
    for fold in onnxfuse.optimize(zoo_model).report.folds:
        assert len(fold.before) == len(fold.replaced)
        assert len(fold.after) == len(fold.nodes)
        made = {name for wired in fold.before for name in wired.outputs}
        assert fold.target in made
        assert all(wired.inputs for wired in fold.before)
        assert any(fold.source in wired.inputs for wired in fold.before)


@pytest.fixture(params=["repvgg", "dbb", "mobileone"])
def zoo_model(request):
    return onnx.load(MODELS / "trained" / f"{request.param}_digits.onnx")
