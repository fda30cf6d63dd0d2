"""Weights that several bodies share, or a body and the graph around it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.lift.building import Builder
from tests.lift.comparing import feeds_for, optimized
from tests.lift.shared_weights import LARGE, PADS, SHARED, SIZES, SMALL, C, levels, ratio


def shaped(graph, *shape):
    for output in graph.output:
        output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, shape))
    return graph


def branch(x, role, channels, weight="shared"):
    """Conv of a captured weight -> scale of its own."""
    inner = Builder(seed=len(role), prefix=f"{role}_")
    y = inner.op("Conv", x, weight, pads=PADS)
    y = inner.op("Mul", y, inner.random(channels, 1, 1), output=f"{role}_y")
    info = helper.make_tensor_value_info(y, TensorProto.FLOAT, ["n", channels, "h", "w"])
    return helper.make_graph(inner.nodes, role, [], [info], inner.initializers)


def conditionals(shape, count):
    """Several Ifs in parallel, all branches with one weight."""
    b = Builder()
    b.random(*shape, name="shared")
    flag = b.input(name="flag", elem_type=TensorProto.BOOL)
    outputs = []
    for number, x in enumerate(levels(b, count)):
        then, other = (branch(x, f"{side}{number}", shape[0]) for side in ("then", "other"))
        outputs.append(b.op("If", flag, then_branch=then, else_branch=other))
    model = b.model(*outputs)
    shaped(model.graph, "n", shape[0], "h", "w")
    feeds = [{**feeds_for(model, SIZES[0]), "flag": np.asarray(chosen)} for chosen in (True, False)]
    return model, optimized(model, feeds=feeds)


def test_keeps_large_weight_that_bodies_share():
    model, folded = conditionals(LARGE, 2)
    assert folded.ops == {"If": 2, "Conv": 4, "Mul": 4}
    assert SHARED in folded.reasons
    assert ratio(model, folded) <= 1.0


def test_folds_into_small_weight_that_bodies_share():
    _, folded = conditionals(SMALL, 2)
    assert folded.ops == {"If": 2, "Conv": 4}


def test_copies_in_all_bodies_count():
    """Each would add 27 KiB, the six of them more than is accepted."""
    model, folded = conditionals((24, C, 3, 3), 3)
    assert folded.ops == {"If": 3, "Conv": 6, "Mul": 6}
    assert ratio(model, folded) <= 1.0


@pytest.mark.parametrize("outside", ["nobody", "layer", "output"])
def test_a_weight_that_one_body_alone_reads_is_replaced(outside):
    b = Builder()
    b.random(*LARGE, name="shared")
    (x,) = levels(b, 1)
    flag = b.input(name="flag", elem_type=TensorProto.BOOL)
    inner = Builder(prefix="other_")
    inner.op("Conv", x, inner.random(*LARGE), pads=PADS, output="other_y")
    info = helper.make_tensor_value_info("other_y", TensorProto.FLOAT, ["n", LARGE[0], "h", "w"])
    other = helper.make_graph(inner.nodes, "other", [], [info], inner.initializers)
    outputs = [b.op("If", flag, then_branch=branch(x, "then", LARGE[0]), else_branch=other)]
    if outside == "layer":
        outputs.append(b.op("Conv", b.op("Relu", x), "shared", pads=PADS))
    elif outside == "output":
        outputs.append("shared")
    model = b.model(*outputs)
    feeds = [{**feeds_for(model, SIZES[0]), "flag": np.asarray(chosen)} for chosen in (True, False)]
    folded = optimized(model, feeds=feeds)
    assert folded.ops["Mul"] == int(outside != "nobody")
    assert ratio(model, folded) <= 1.0
