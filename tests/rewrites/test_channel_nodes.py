"""What nodes do with channels, node by node; and how far it is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.errors import CertificateError
from onnxfuse.graph import Graph, TensorType
from onnxfuse.rewrites import channel_needs
from onnxfuse.rewrites.channel_nodes import Layer, Span, Tie, role
from onnxfuse.rewrites.channels import remove_channels
from onnxfuse.shapes import infer_types
from tests.lift.building import Builder
from tests.rewrites.idle import C, behind, conv, dying, start

FLOAT = TensorProto.FLOAT
IMAGE, ROWS = (2, 6, 5, 4), (2, 6)


def found(op: str, inputs: Sequence[object], settings: Mapping[str, object], at: int = 1):
    """The role of a node.

    Shapes stand for tensors that are computed, with 6 channels along an axis; lists for constants
    of such shapes, and None for a tensor of which nothing is known.
    """
    names, types, spans, constants = [], {}, {}, []
    kind = np.int64 if settings.get("kind") == "integers" else np.float32
    for number, given in enumerate(inputs):
        name = "" if isinstance(given, str) else f"i{number}"
        names.append(name)
        if isinstance(given, list | np.ndarray):
            value = np.ones(given, kind) if isinstance(given, list) else given
            constants.append(numpy_helper.from_array(value, name))
        elif isinstance(given, tuple):
            types[name] = TensorType(FLOAT, given)
            if at < len(given) and given[at] == 6:
                spans[name] = Span(at, 6)
    made = TensorProto.INT32 if settings.get("kind") == "to integers" else FLOAT
    types["y"] = TensorType(made, IMAGE)
    options = {name: value for name, value in settings.items() if name != "kind"}
    node = helper.make_node(op, names, ["y"], **options)
    proto = onnx.GraphProto(node=[node], initializer=constants)
    return role(Graph(proto, 17, 8, types=types), 0, spans)


@pytest.mark.parametrize(
    ("op", "inputs", "settings"),
    [
        ("Conv", (IMAGE, [8, 6, 3, 3], [8]), {}),
        ("Conv", (IMAGE, [8, 6, 3, 3]), {"pads": [1] * 4}),
        ("ConvTranspose", (IMAGE, [6, 8, 3, 3], [8]), {}),
        ("Gemm", (ROWS, [6, 8], [8]), {}),
        ("Gemm", (ROWS, [8, 6], [1, 8]), {"transB": 1}),
        ("MatMul", (ROWS, [6, 8]), {}),
    ],
)
def test_layers(op, inputs, settings):
    layer = found(op, inputs, settings)
    assert isinstance(layer, Layer)
    assert (layer.x_span, layer.y_span) == (Span(1, 6), Span(1, 8))
    assert layer.reaches == (op == "ConvTranspose" or "pads" in settings)


@pytest.mark.parametrize(
    ("op", "inputs", "settings"),
    [
        ("Conv", (IMAGE, [8, 6]), {}),
        ("Conv", (IMAGE, [8, 6, 3, 3], [6]), {}),
        ("Conv", (IMAGE, IMAGE), {}),
        ("Conv", ([2, 6, 5, 4], [8, 6, 3, 3]), {}),
        ("Conv", (None, [8, 6, 3, 3]), {}),
        ("Conv", (IMAGE, [6, 1], [6]), {"group": 6}),
        ("Conv", (IMAGE, [6, 1, 3, 3], [1]), {"group": 6}),
        ("Conv", (IMAGE, [6, 2, 3, 3]), {"group": 6}),
        ("Conv", (IMAGE, [6, 1, 3, 3]), {"group": 3}),
        ("Conv", (IMAGE, IMAGE), {"group": 6}),
        ("ConvTranspose", (IMAGE, [6, 8]), {}),
        ("ConvTranspose", (IMAGE, IMAGE), {}),
        ("ConvTranspose", (IMAGE, [6, 8, 3, 3], [6]), {}),
        ("ConvTranspose", (IMAGE, [6, 4, 3, 3]), {"group": 2}),
        ("Gemm", (ROWS, ROWS), {}),
        ("Gemm", (ROWS, [6]), {}),
        ("Gemm", (ROWS, [6, 8], [2, 8]), {}),
        (
            "Gemm",
            (
                ROWS,
                [6, 8],
                [8],
            ),
            {"transA": 1},
        ),
        ("Gemm", (ROWS, [6, 8], [8]), {"alpha": 2.0}),
        ("Gemm", (ROWS, [6, 8], [8]), {"beta": 2.0}),
        ("MatMul", (ROWS, ROWS), {}),
        ("MatMul", (ROWS, [6]), {}),
        ("MatMul", ((6,), [6, 8]), {}),
        ("MatMul", ([6, 6], [6, 8]), {}),
        ("MatMul", (ROWS, [6, 8]), {"kind": "integers"}),
    ],
)
def test_what_is_no_layer(op, inputs, settings):
    assert found(op, inputs, settings) is None


def floats(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


def integers(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


ROI = floats()
DOUBLED = floats(1, 1, 2, 2)
POOLED = (2, 6, 1, 1)
SIMPLE = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.mark.parametrize(
    ("op", "inputs", "settings", "cuts"),
    [
        ("Relu", (IMAGE,), {}, ()),
        ("Add", (IMAGE, IMAGE), {}, ()),
        ("Add", ([6, 1, 1], IMAGE), {}, ((0, 0),)),
        ("Add", (IMAGE, [2, 6, 5, 4]), {}, ((1, 1),)),
        ("Add", (IMAGE, [4]), {}, None),
        ("Add", (IMAGE, [1]), {}, ()),
        ("Mul", (IMAGE, (2, 1, 5, 4)), {}, ()),
        ("Clip", (IMAGE, "", []), {}, ()),
        ("Conv", (IMAGE, [12, 1, 3, 3], [12]), {"group": 6}, ((1, 0), (2, 0))),
        ("BatchNormalization", (IMAGE, *[[6]] * 4), {}, ((1, 0), (2, 0), (3, 0), (4, 0))),
        ("MaxPool", (IMAGE,), {"kernel_shape": [2, 2]}, ()),
        ("ReduceMean", (IMAGE,), {"axes": [3, -2]}, ()),
        ("Flatten", (POOLED,), {}, ()),
        ("Squeeze", (POOLED, integers(2, 3)), {}, ()),
        ("Resize", (IMAGE, ROI, DOUBLED), SIMPLE, ()),
        ("Concat", (IMAGE, IMAGE), {"axis": 1}, ()),
    ],
)
def test_ties(op, inputs, settings, cuts):
    tie = found(op, inputs, settings)
    assert isinstance(tie, Tie)
    assert tie.y_span.axis == 1
    if cuts is not None:
        assert tie.cuts == cuts


@pytest.mark.parametrize(
    ("op", "inputs", "settings", "axis"),
    [
        ("Sin", (IMAGE,), {}, 1),
        ("Relu", ((2, 5, 4, 4),), {}, 1),
        ("Relu", (IMAGE,), {"kind": "to integers"}, 1),
        ("Add", (IMAGE, None), {}, 1),
        ("Add", (IMAGE, [5, 1, 1]), {}, 1),
        ("Add", (IMAGE, (2, 5, 1, 1)), {}, 1),
        ("Add", (IMAGE, ("c", 1, 1)), {}, 1),
        ("Add", ((2, 6, 6, 4), (6, 6, 4)), {}, 1),
        ("Conv", ((2, 4, 6, 3), [6, 1, 3, 3]), {"group": 6}, 2),
        ("BatchNormalization", (IMAGE, *[[6]] * 4), {"training_mode": 1}, 1),
        ("BatchNormalization", (IMAGE, [6], [6], [6], ROWS), {}, 1),
        ("BatchNormalization", (IMAGE, [6], [6], [6], [6, 5, 4]), {}, 1),
        ("BatchNormalization", ((2, 3, 6, 1), *[[6]] * 4), {}, 2),
        ("MaxPool", ((2, 3, 6, 1),), {"kernel_shape": [2, 2]}, 2),
        ("ReduceMean", (IMAGE,), {}, 1),
        ("ReduceMean", (IMAGE,), {"axes": [1]}, 1),
        ("ReduceMean", (IMAGE,), {"axes": [0, 2], "keepdims": 0}, 1),
        ("Flatten", (POOLED,), {"axis": 2}, 1),
        ("Flatten", (IMAGE,), {}, 1),
        ("Flatten", (ROWS,), {}, 1),
        ("Flatten", ((2, 1, 6, 1),), {}, 2),
        ("Squeeze", ((1, 6, 1), integers(0)), {}, 1),
        ("Squeeze", (POOLED,), {}, 1),
        ("Squeeze", (POOLED, (1,)), {}, 1),
        ("Squeeze", (IMAGE, integers(3)), {}, 1),
        ("Resize", (IMAGE, ROI, floats(1, 1, 2.5, 2)), SIMPLE, 1),
        ("Resize", (IMAGE, ROI, floats(1, 2, 2, 2)), SIMPLE, 1),
        ("Resize", (IMAGE, ROI, floats(), integers(2, 6, 10, 8)), SIMPLE, 1),
        ("Resize", (IMAGE, (0,), DOUBLED), SIMPLE, 1),
        ("Resize", ((2, 3, 6, 4), ROI, DOUBLED), SIMPLE, 2),
        ("Concat", (IMAGE, IMAGE), {"axis": 0}, 1),
        ("Concat", (IMAGE, (2, 5, 5, 4)), {"axis": 1}, 1),
    ],
)
def test_what_is_no_tie(op, inputs, settings, axis):
    assert found(op, inputs, settings, axis) is None


def test_a_concat_of_channels_along_different_axes():
    spans = {"a": Span(1, 6), "b": Span(2, 6)}
    node = helper.make_node("Concat", ["a", "b"], ["y"], axis=1)
    types = dict.fromkeys("ab", TensorType(FLOAT, (2, 6, 6)))
    graph = Graph(onnx.GraphProto(node=[node]), 17, 8, types=types)
    assert role(graph, 0, spans) is None


# Constants, and the proof ----------------------------------------------------------------------


def removed(model: onnx.ModelProto) -> int:
    """How many groups of channels lose some, with nothing folded before."""
    graph = Graph(model.graph, model.opset_import[0].version, 8, types=infer_types(model))
    return len(remove_channels(graph, frozenset()).folds)


GATES = {
    "Sigmoid": (1, lambda b, z: b.op("Sigmoid", z)),
    "Clip": (1, lambda b, z: b.op("Clip", z, b.constant(0.0), b.constant(1.0))),
    "Clip above": (0, lambda b, z: b.op("Clip", z, "", b.constant(1.0))),
    "one more": (1, lambda b, z: b.op("Add", b.op("Tanh", z), b.constant(1.0))),
    "less": (1, lambda b, z: b.op("Sub", b.random(C, 1, 1), b.op("Erf", z))),
    "none": (0, lambda b, z: z),
    "shifted": (0, lambda b, z: b.op("Add", z, b.constant(1.0))),
    "infinity": (0, lambda b, z: b.op("Add", b.op("Tanh", z), b.constant(np.inf))),
    "reciprocal": (0, lambda b, z: b.op("Reciprocal", b.op("Sigmoid", z))),
    "of two": (0, lambda b, z: b.op("Add", b.op("Tanh", z), z)),
}


@pytest.mark.parametrize("name", GATES)
def test_what_zeros_may_be_multiplied_by(name):
    count, gate = GATES[name]
    b = Builder()
    x = b.op("Relu", dying(b, bias=-1.0))
    z = gate(b, conv(b, start(b, name="z"), 6, C))
    assert removed(b.model(behind(b, b.op("Mul", x, z)))) == count


@pytest.mark.parametrize(("length", "count"), [(3, 1), (4, 0)])
def test_it_is_not_looked_for_far_away(length, count):
    b = Builder()
    x = b.op("Relu", dying(b, bias=-1.0))
    z = b.op("Sigmoid", conv(b, start(b, name="z"), 6, C))
    for _ in range(length):
        z = b.op("Add", z, b.random(C, 1, 1))
    assert removed(b.model(behind(b, b.op("Mul", x, z)))) == count


def test_a_wrong_constant_does_not_pass(monkeypatch):
    real = channel_needs.constant_channels
    wrong = lambda surveyed: {n: value + 1e-6 for n, value in real(surveyed).items()}  # noqa: E731
    monkeypatch.setattr(channel_needs, "constant_channels", wrong)
    b = Builder()
    with pytest.raises(CertificateError, match=r"without some channels differs by .* 1e-10"):
        removed(b.model(behind(b, b.op("Tanh", dying(b)))))


def test_a_channel_that_is_needed_does_not_pass(monkeypatch):
    real = channel_needs.constant_channels
    zeros = lambda surveyed: {n: 0 * np.nan_to_num(v) for n, v in real(surveyed).items()}  # noqa: E731
    monkeypatch.setattr(channel_needs, "constant_channels", zeros)
    b = Builder()
    with pytest.raises(CertificateError, match="nothing was written"):
        removed(b.model(behind(b, b.op("Relu", dying(b)))))


def test_nothing_is_looked_at_where_no_weight_has_zeros(monkeypatch):
    monkeypatch.setattr(channel_needs, "_Survey", lambda *_: pytest.fail("it was looked at"))
    b = Builder()
    assert removed(b.model(behind(b, b.op("Relu", dying(b, dead=()))))) == 0


def test_an_operator_that_the_evaluator_lacks():
    """A pooling by a mode that ONNX Runtime reads otherwise."""
    b = Builder(19)
    x = b.op("Relu", dying(b, bias=-1.0))
    x = b.op("AveragePool", x, kernel_shape=[2, 2], auto_pad="SAME_UPPER", dilations=[2, 2])
    model = b.model(behind(b, x))
    graph = Graph(model.graph, 19, 9, types=infer_types(model))
    outcome = remove_channels(graph, frozenset())
    ((_, _, reason),) = outcome.refusals
    assert reason.startswith("it cannot be certified: auto_pad with dilations")
    assert not outcome.folds
