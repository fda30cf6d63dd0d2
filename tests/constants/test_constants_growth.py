import numpy as np

from tests.constants.building import (
    RNG,
    build,
    fold,
    node,
    value,
)

# 256 KiB; whole numbers, since kernels for constant and for computed weights round differently.
WIDE = RNG.integers(-9, 10, (256, 256)).astype(np.float32)


def wide(nodes, weights, outputs="y", **options):
    inputs = [value("x", ("N", 256))]
    feeds = {"x": RNG.integers(-9, 10, (2, 256)).astype(np.float32)}
    return fold(build(nodes, weights, inputs, outputs), feeds, **options)


def test_a_value_that_replaces_as_much_is_written():
    folded = wide([node("Transpose", "w", "t"), node("MatMul", "x t", "y")], {"w": WIDE})
    assert folded.operators == ["MatMul"]
    assert folded.weights.keys() == {"t"}
    assert not folded.analysis_only


def test_a_value_larger_than_what_it_replaces_is_for_analysis_only():
    nodes = [node("Neg", "w", "n"), node("Expand", "n s", "t"), node("MatMul", "x t", "y")]
    weights = {"w": np.float32(2), "s": np.array([256, 256])}
    folded = wide(nodes, weights)
    assert folded.operators == ["Neg", "Expand", "MatMul"]
    assert folded.weights.keys() == {"w", "s"}
    assert folded.analysis_only.keys() == {"t"}
    np.testing.assert_array_equal(folded.analysis_only["t"], np.full((256, 256), -2))


def test_small_values_are_written_whatever_they_replace():
    nodes = [node("Expand", "w s", "t"), node("MatMul", "x t", "y")]
    folded = wide(nodes, {"w": np.float32(2), "s": np.array([256, 16])})
    assert folded.operators == ["MatMul"]


def test_a_weight_that_stays_in_use_is_not_replaced():
    nodes = [node("Transpose", "w", "t"), node("MatMul", "x t", "a"), node("MatMul", "a w", "y")]
    folded = wide(nodes, {"w": WIDE})
    assert folded.operators == ["Transpose", "MatMul", "MatMul"]
    assert folded.weights.keys() == {"w"}
    np.testing.assert_array_equal(folded.analysis_only["t"], WIDE.T)


def test_a_weight_that_is_an_output_is_not_replaced():
    folded = wide([node("Transpose", "w", "t"), node("MatMul", "x t", "y")], {"w": WIDE}, "yw")
    assert folded.operators == ["Transpose", "MatMul"]


def test_an_identity_of_a_shared_weight_does_not_copy_it():
    nodes = [node("Identity", "w", "t"), node("MatMul", "x t", "a"), node("MatMul", "a w", "y")]
    folded = wide(nodes, {"w": WIDE})
    assert folded.operators == ["Identity", "MatMul", "MatMul"]
    assert folded.analysis_only.keys() == {"t"}


def test_two_values_from_one_weight_count_together():
    nodes = [node("Transpose", "w", "t"), node("Neg", "w", "n"), node("MatMul", "x t", "a")]
    folded = wide([*nodes, node("MatMul", "a n", "y")], {"w": WIDE})
    assert folded.operators == ["Transpose", "Neg", "MatMul", "MatMul"]
    assert folded.analysis_only.keys() == {"t", "n"}


def test_parts_of_one_weight_replace_it_together():
    nodes = [node("Split", "w parts", "a b", axis=1), node("MatMul", "x a", "p")]
    nodes += [node("MatMul", "x b", "q"), node("Concat", "p q", "y", axis=1)]
    folded = wide(nodes, {"w": WIDE, "parts": np.array([200, 56])})
    assert folded.operators == ["MatMul", "MatMul", "Concat"]
    assert folded.weights.keys() == {"a", "b"}


def test_nodes_that_stay_read_values_that_were_folded():
    nodes = [node("Mul", "w w", "v"), node("Add", "x v", "p")]
    nodes += [node("Expand", "v s", "t"), node("MatMul", "p t", "y")]
    folded = wide(nodes, {"w": np.float32(3), "s": np.array([256, 256])})
    assert folded.operators == ["Add", "Expand", "MatMul"]
    assert folded.weights.keys() == {"v", "s"}


def test_all_outputs_of_a_node_that_stays_come_from_it():
    nodes = [node("Expand", "w s", "e"), node("Split", "e parts", "t u", axis=1)]
    nodes += [
        node("MatMul", "x t", "p"),
        node("MatMul", "x u", "q"),
        node("Concat", "p q", "y", axis=1),
    ]
    weights = {"w": np.float32(3), "s": np.array([256, 256]), "parts": np.array([250, 6])}
    folded = wide(nodes, weights)
    assert folded.operators == ["Expand", "Split", "MatMul", "MatMul", "Concat"]
    assert folded.analysis_only.keys() == {"t", "u"}
