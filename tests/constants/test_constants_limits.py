import time

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.constants.building import (
    ADD,
    FLOAT,
    GRID,
    ROW,
    Folded,
    build,
    fold,
    node,
)

HUGE = np.array([10**6, 10**6])

EXPLOSIONS = {
    "ConstantOfShape": node("ConstantOfShape", "huge", "k"),
    "Expand": node("Expand", "one huge", "k"),
    "Tile": node("Tile", "grid huge", "k"),
    "overflowing Tile": node("Tile", "row wrap", "k"),
    "Range": node("Range", "zero trillion step", "k"),
    "Pad": node("Pad", "grid pads", "k"),
    "OneHot": node("OneHot", "indices trillion ends", "k"),
    "Resize": node("Resize", "image none scales", "k"),
    "MatMul": node("MatMul", "column line", "k"),
}


@pytest.mark.parametrize("explosion", EXPLOSIONS.values(), ids=EXPLOSIONS)
def test_explosions_are_left_alone(explosion):
    if explosion.op_type == "Resize":
        explosion.input[1] = ""
    weights = {
        "huge": HUGE,
        "one": np.float32(1),
        "grid": GRID,
        "row": ROW,
        "wrap": np.array([2**62]),
        "zero": np.array(0),
        "trillion": np.array(10**12),
        "step": np.array(1),
        "pads": np.array([0, 10**6, 10**6, 0]),
        "indices": np.array([1, 2]),
        "ends": np.array([0.5, 1.5], np.float32),
        "image": GRID.reshape(1, 1, 4, 4),
        "scales": np.array([1, 1, 1e6, 1e6], np.float32),
        "column": np.ones((30_000, 1), np.float32),
        "line": np.ones((1, 30_000), np.float32),
    }
    nodes = [explosion, node("Shape", "k", "s"), node("Cast", "k", "f", to=FLOAT)]
    nodes += [node("ReduceMax", "f", "m", keepdims=0), node("Add", "x m", "y")]
    folded = Folded(build(nodes, weights))
    assert folded.operators[0] == explosion.op_type


def test_the_limit_holds_for_each_and_for_all_together():
    nodes = [node("Mul", f"w{i} w{i}", f"k{i}") for i in range(4)]
    nodes += [node("Sum", "x k0 k1 k2 k3", "y")]
    weights = {f"w{i}": ROW + i for i in range(4)}
    assert fold(build(nodes, weights), limit=15).operators == ["Mul"] * 4 + ["Sum"]
    assert fold(build(nodes, weights), limit=48).operators == ["Mul", "Sum"]
    assert fold(build(nodes, weights), limit=64).operators == ["Sum"]


def test_intermediates_count():
    nodes = [node("Expand", "w s", "big"), node("ReduceMax", "big", "k", keepdims=0), ADD]
    model = build(nodes, {"w": np.float32(2), "s": np.array([1000, 1000])})
    assert fold(model).operators == ["Add"]
    assert fold(model, limit=4_000_000).operators == ["Expand", "ReduceMax", "Add"]


def test_sizes_that_depend_on_values_become_known_round_by_round():
    nodes = [
        node("NonZero", "w", "z"),
        node("Squeeze", "z axis", "i"),
        node("Gather", "w i", "g"),
        node("Unique", "g", "u"),
        node("Size", "u", "n"),
        node("Range", "zero n one", "r"),
        node("Cast", "r", "f", to=FLOAT),
        node("ReduceSum", "f", "k", keepdims=0),
        ADD,
    ]
    weights = {"w": ROW, "axis": np.array([0]), "zero": np.array(0), "one": np.array(1)}
    folded = fold(build(nodes, weights))
    assert folded.operators == ["Add"]
    assert folded.weights["k"] == 0 + 1 + 2


def test_the_idiom_of_exporters_for_expand():
    """where(shape == -1, 1, shape) with everything spelled out in nodes."""
    nodes = [
        node("Shape", "w", "rank_of"),
        node("ConstantOfShape", "two", "ones", value=numpy_helper.from_array(np.array([1]))),
        node("Mul", "ones minus", "any"),
        node("Equal", "target any", "is_any"),
        node("Where", "is_any ones target", "s"),
        node("Expand", "w s", "k"),
        ADD,
    ]
    weights = {"w": ROW, "two": np.array([2]), "minus": np.array(-1), "target": np.array([3, -1])}
    folded = fold(build(nodes, weights))
    assert folded.operators == ["Add"]
    np.testing.assert_array_equal(folded.weights["k"], np.tile(ROW, (3, 1)))


def test_one_node_that_fails_does_not_stop_the_others():
    nodes = [node("Neg", "w", "a"), node("Gather", "w far", "g"), node("Neg", "g", "h")]
    nodes += [node("Abs", "w", "b"), node("Sum", "x a h b", "y")]
    folded = Folded(build(nodes, {"w": ROW, "far": np.array([9])}))
    assert folded.operators == ["Gather", "Neg", "Sum"]
    assert {"a", "b"} <= folded.weights.keys()


def test_an_operator_without_a_kernel_does_not_stop_the_others():
    """ONNX Runtime computes determinants of float32 only."""
    nodes = [node("Neg", "w", "a"), node("BitwiseNot", "n", "b"), node("Det", "d", "e")]
    nodes += [node("Cast", "b", "f", to=FLOAT), node("Cast", "e", "g", to=FLOAT)]
    nodes += [node("Sum", "x a f g", "y")]
    weights = {"w": ROW, "n": np.array([1, 2, 3, 4]), "d": GRID.astype(np.float64)}
    folded = Folded(build(nodes, weights, opset=18))
    assert folded.operators == ["Det", "Cast", "Sum"]


def test_own_mistakes_are_not_swallowed(monkeypatch):
    def broken(*_, **__):
        raise AttributeError("a bug")

    monkeypatch.setattr(onnxruntime, "InferenceSession", broken)
    with pytest.raises(AttributeError, match="a bug"):
        Folded(build([node("Neg", "w", "k"), ADD], {"w": ROW}))


def test_many_nodes_that_fail_cost_little():
    nodes = []
    for i in range(1000):
        nodes += [node("Mul", "w w", f"m{i}"), node("Gather", f"m{i} far", f"g{i}")]
    nodes.append(node("Sum", " ".join(["x", *(f"g{i}" for i in range(1000))]), "y"))
    start = time.process_time()
    folded = Folded(build(nodes, {"w": ROW, "far": np.array([9])}))
    assert time.process_time() - start < 10  # 0.4 s on an idle machine
    assert folded.operators == ["Gather"] * 1000 + ["Sum"]
