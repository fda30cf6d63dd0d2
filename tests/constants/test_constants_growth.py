import numpy as np

from tests.constants.building import (
    FLOAT,
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


def test_a_value_larger_than_what_it_replaces_is_not_written():
    nodes = [node("Neg", "w", "n"), node("Expand", "n s", "t")]
    nodes.append(node("Concat", "x t", "y", axis=0))
    weights = {"w": np.float32(2), "s": np.array([256, 256])}
    folded = wide(nodes, weights)
    assert folded.operators == ["Neg", "Expand", "Concat"]
    assert folded.weights.keys() == {"w", "s"}


def test_a_weight_made_of_small_integers_is_written():
    kernel, scale = RNG.integers(-8, 8, (256, 256)).astype(np.int8), np.float32([[0.5], [2]])
    nodes = [node("Cast", "k", "c", to=FLOAT), node("Expand", "h s", "e"), node("Mul", "c e", "t")]
    nodes.append(node("MatMul", "x t", "y"))
    weights = {"k": kernel, "h": scale.repeat(128, 0), "s": np.array([256, 256])}
    folded = wide(nodes, weights)
    assert folded.operators == ["MatMul"]
    assert folded.weights.keys() == {"t"}


def test_a_weight_made_of_a_scalar_is_written():
    nodes = [node("Expand", "w s", "t"), node("Gemm", "x t", "y")]
    folded = wide(nodes, {"w": np.float32(2), "s": np.array([256, 256])})
    assert folded.operators == ["Gemm"]


def test_a_batch_of_copies_of_a_weight_is_not_written():
    nodes = [node("Expand", "w s", "t"), node("MatMul", "x t", "y")]
    weights = {"w": WIDE, "s": np.array([3, 256, 256])}
    assert wide(nodes, weights).operators == ["Expand", "MatMul"]


def test_small_values_are_written_whatever_they_replace():
    nodes = [node("Expand", "w s", "t"), node("MatMul", "x t", "y")]
    folded = wide(nodes, {"w": np.float32(2), "s": np.array([256, 16])})
    assert folded.operators == ["MatMul"]


def test_a_weight_that_stays_in_use_is_not_replaced():
    nodes = [node("Transpose", "w", "t"), node("MatMul", "x t", "a"), node("MatMul", "a w", "y")]
    folded = wide(nodes, {"w": WIDE})
    assert folded.operators == ["Transpose", "MatMul", "MatMul"]
    assert folded.weights.keys() == {"w"}


def test_a_weight_that_is_an_output_is_not_replaced():
    folded = wide([node("Transpose", "w", "t"), node("MatMul", "x t", "y")], {"w": WIDE}, "yw")
    assert folded.operators == ["Transpose", "MatMul"]


def test_an_identity_of_a_shared_weight_does_not_copy_it():
    nodes = [node("Identity", "w", "t"), node("MatMul", "x t", "a"), node("MatMul", "a w", "y")]
    folded = wide(nodes, {"w": WIDE})
    assert folded.operators == ["Identity", "MatMul", "MatMul"]


def test_two_values_from_one_weight_count_together():
    nodes = [node("Transpose", "w", "t"), node("Neg", "w", "n"), node("MatMul", "x t", "a")]
    folded = wide([*nodes, node("MatMul", "a n", "y")], {"w": WIDE})
    assert folded.operators == ["Transpose", "Neg", "MatMul", "MatMul"]


def test_parts_of_one_weight_replace_it_together():
    nodes = [node("Split", "w parts", "a b", axis=1), node("MatMul", "x a", "p")]
    nodes += [node("MatMul", "x b", "q"), node("Concat", "p q", "y", axis=1)]
    folded = wide(nodes, {"w": WIDE, "parts": np.array([200, 56])})
    assert folded.operators == ["MatMul", "MatMul", "Concat"]
    assert folded.weights.keys() == {"a", "b"}


def test_nodes_that_stay_read_values_that_were_folded():
    nodes = [node("Mul", "w w", "v"), node("Add", "x v", "p")]
    nodes += [node("Expand", "v s", "t"), node("Concat", "p t", "y", axis=0)]
    folded = wide(nodes, {"w": np.float32(3), "s": np.array([256, 256])})
    assert folded.operators == ["Add", "Expand", "Concat"]
    assert folded.weights.keys() == {"v", "s"}


def test_all_outputs_of_a_node_that_stays_come_from_it():
    nodes = [node("Expand", "w s", "e"), node("Split", "e parts", "t u", axis=1)]
    nodes += [node("MatMul", "x u", "q"), node("Split", "x parts", "l r", axis=1)]
    nodes.append(node("Concat", "l t", "y", axis=0))
    weights = {"w": np.float32(3), "s": np.array([256, 256]), "parts": np.array([250, 6])}
    folded = wide(nodes, weights, "yq")
    assert folded.operators == ["Expand", "Split", "MatMul", "Split", "Concat"]


def test_a_scale_of_codes_is_not_written_wider():
    scale = node("Cast", "h", "s", to=FLOAT)
    layer = node("DequantizeLinear", "q s", "k", axis=0)
    weights = {"q": np.array([1, -3, 5, 7], np.int8), "h": np.arange(1, 5, dtype=np.float16)}
    folded = fold(build([scale, layer, node("Add", "x k", "y")], weights))
    assert folded.operators == ["Cast", "DequantizeLinear", "Add"]
    assert folded.weights["h"].dtype == np.float16


def test_codes_that_take_as_much_are_written():
    weights = {"q": np.ones((4, 1), np.int8), "s": np.float32(0.5), "to": np.array([4])}
    nodes = [node("Reshape", "q to", "r"), node("DequantizeLinear", "r s", "k")]
    folded = fold(build([*nodes, node("Add", "x k", "y")], weights))
    assert folded.operators == ["DequantizeLinear", "Add"]
    assert folded.weights["r"].dtype == np.int8
