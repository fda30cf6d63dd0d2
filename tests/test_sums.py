"""Sums are put in an order in which branches of one source fold."""

import pytest

from tests.lift.building import Builder, same
from tests.lift.comparing import optimized

SIZES = ({"n": 1, "h": 5, "w": 6}, {"n": 2, "h": 8, "w": 7})


def branches(b, x):
    wide = b.conv(x, 4, 4, (3, 3), pads=same((3, 3)))
    return wide, b.conv(x, 4, 4, (1, 1)), b.batch_norm(x, 4)


@pytest.mark.parametrize("order", ["zabc", "azbc", "abzc", "abcz"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_shortcut_among_branches_does_not_keep_them_apart(order, nested):
    b = Builder()
    x = b.op("Relu", b.input("n", 4, "h", "w"))
    z = b.op("Sigmoid", x)
    terms = dict(zip("zabc", (z, *branches(b, x)), strict=True))
    names = [terms[letter] for letter in order]
    if nested:
        y = b.op("Add", b.op("Add", names[0], names[1]), b.op("Add", names[2], names[3]))
    else:
        y = names[0]
        for name in names[1:]:
            y = b.op("Add", y, name)
    folded = optimized(b.model(b.op("Relu", y, output="y")), *SIZES)
    assert folded.ops == {"Relu": 2, "Sigmoid": 1, "Conv": 1, "Add": 1}


def test_two_sources_become_one_conv_each():
    b = Builder()
    x = b.op("Relu", b.input("n", 4, "h", "w"))
    z = b.op("Sigmoid", x)
    (a, c, _), (d, e, _) = branches(b, x), branches(b, z)
    y = b.op("Add", b.op("Add", b.op("Add", a, d), c), e)
    folded = optimized(b.model(b.op("Relu", y)), *SIZES)
    assert folded.ops == {"Relu": 2, "Sigmoid": 1, "Conv": 2, "Add": 1}


def test_an_inner_sum_that_is_needed_stays():
    b = Builder()
    x = b.op("Relu", b.input("n", 4, "h", "w"))
    z = b.op("Sigmoid", x)
    a, c, _ = branches(b, x)
    inner = b.op("Add", z, a, output="inner")
    folded = optimized(b.model(b.op("Add", inner, c), inner), *SIZES)
    assert folded.ops["Add"] == 2


def test_a_sum_with_nothing_in_common_stays_as_it_is():
    b = Builder()
    x = b.op("Relu", b.input("n", 4, "h", "w"))
    terms = [b.op(kind, x) for kind in ("Sigmoid", "Tanh", "Exp")]
    model = b.model(b.op("Add", b.op("Add", terms[0], terms[1]), terms[2]))
    folded = optimized(model, *SIZES)
    assert list(folded.model.graph.node) == list(model.graph.node)
