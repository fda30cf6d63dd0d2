import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.constants.building import (
    GRID,
    RNG,
    ROW,
    Folded,
    build,
    fold,
    node,
    value,
)

UNARY = ["Neg", "Abs", "Sqrt", "Relu", "Identity", "Sin", "Transpose", "Round", "Softmax"]

BINARY = ["Add", "Mul", "Sub", "Div", "Max", "Min", "PRelu"]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_graphs_compute_the_same_bit_for_bit(data):
    names, nodes = ["x", "w", "v"], []
    for index in range(data.draw(st.integers(1, 12))):
        inputs = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2))
        op_type = data.draw(st.sampled_from(UNARY if len(inputs) == 1 else BINARY))
        nodes.append(node(op_type, " ".join(inputs), f"t{index}"))
        names.append(f"t{index}")
    outputs = set(names[3:]).difference(*(n.input for n in nodes))
    outputs |= data.draw(st.sets(st.sampled_from(names[3:]), max_size=3))
    weights = {"w": GRID, "v": np.eye(4, dtype=np.float32)[::-1] * 1.5}
    model = build(nodes, weights, [value("x", (4, 4))], sorted(outputs))
    folded = fold(model, {"x": RNG.standard_normal((4, 4)).astype(np.float32)})
    made_from_x = {"x"}
    for n in nodes:
        if made_from_x.intersection(n.input):
            made_from_x.update(n.output)
    assert all(made_from_x.intersection(n.input) for n in folded.model.graph.node)


@pytest.mark.slow
def test_15000_tiny_nodes():
    nodes = []
    for i in range(5000):
        nodes.append(node("Constant", "", f"c{i}", value=numpy_helper.from_array(ROW + i)))
        nodes.append(node("Mul", f"c{i} w", f"m{i}"))
        nodes.append(node("Abs", f"m{i}", f"a{i}"))
        nodes.append(node("Add", f"{'x' if i == 0 else f'y{i - 1}'} a{i}", f"y{i}"))
    folded = Folded(build(nodes, {"w": np.float32(3)}, outputs=["y4999"]))
    assert folded.operators == ["Add"] * 5000
    np.testing.assert_array_equal(folded.weights["a4999"], np.abs((ROW + 4999) * 3))
