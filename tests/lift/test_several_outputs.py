"""Outputs of one node that folds take apart."""

from tests.lift.building import Builder
from tests.lift.comparing import optimized


def test_a_stretch_to_one_output_of_a_split_and_the_other_output():
    b = Builder(opset=7)
    x = b.op("MatMul", b.input("n", 3, "w", 2), b.random(2, 2), output="all")
    first, second = b.ops("Split", x, outputs=2, axis=3, split=[1, 1])
    total = b.op("Add", second, first, output="total")
    y = b.op("MatMul", total, b.random(1, 1), output="scaled")
    outputs = (b.op("Add", y, first), b.op("MatMul", y, b.random(1, 1)))
    optimized(b.model(*outputs, "all", first, second, "total", "scaled"), {"n": 2, "w": 5})
