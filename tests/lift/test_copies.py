"""Weights that several layers share: what is folded into copies of them, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.lift.building import Builder
from tests.lift.comparing import optimized
from tests.lift.shared_weights import (
    LARGE,
    MIDDLE,
    PADS,
    SHARED,
    SIZES,
    SMALL,
    C,
    levels,
    ratio,
    scaled,
)


def folded_scales(shape, count, plain=0):
    """`count` Convs of one weight, each in front of a scale of its own, and `plain` more Convs."""
    b = Builder()
    b.random(*shape, name="shared")
    outputs = [scaled(b, x, shape) for x in levels(b, count)]
    for number in range(plain):
        outputs.append(b.op("Conv", b.input("n", C, "h", "w", name=f"plain{number}"), "shared"))
    model = b.model(*outputs)
    return model, optimized(model, *SIZES)


# Scales -----------------------------------------------------------------------------------------


def test_keeps_large_weight_that_levels_share():
    model, folded = folded_scales(LARGE, 5)
    assert folded.ops == {"Conv": 5, "Mul": 5}
    assert ratio(model, folded) <= 1.0
    assert folded.reasons == " | ".join([f"Mul: {SHARED} 0.3 MB"] * 5)


def test_folds_into_large_weight_that_one_layer_reads():
    model, folded = folded_scales(LARGE, 1)
    assert folded.ops == {"Conv": 1}
    assert ratio(model, folded) <= 1.0


def test_folds_into_small_weight_that_levels_share():
    _, folded = folded_scales(SMALL, 5)
    assert folded.ops == {"Conv": 5}
    assert "shared" not in {t.name for t in folded.model.graph.initializer}


@pytest.mark.parametrize(("count", "plain"), [(3, 0), (2, 1)])
def test_what_all_copies_of_a_weight_add_counts(count, plain):
    """54 KiB more are accepted, 108 are not; a weight goes when nobody reads it any more."""
    assert folded_scales(MIDDLE, 2)[1].ops == {"Conv": 2}
    assert folded_scales(MIDDLE, 1, plain=1)[1].ops == {"Conv": 2}
    kept = folded_scales(MIDDLE, count, plain)[1]
    assert kept.ops == {"Conv": 3, "Mul": count}
    assert SHARED in kept.reasons


@pytest.mark.parametrize("reader", ["layer", "data", "output"])
def test_keeps_large_weight_that_stays(reader):
    b = Builder()
    b.random(*LARGE, name="shared")
    (x,) = levels(b, 1)
    outputs = [scaled(b, x, LARGE)]
    if reader == "layer":
        outputs.append(b.op("Conv", b.input("n", C, "h", "w"), "shared", pads=PADS))
    elif reader == "data":
        outputs.append(b.op("Add", b.input(*LARGE), "shared"))
    else:
        outputs.append("shared")
    folded = optimized(b.model(*outputs), *SIZES)
    assert folded.ops["Mul"] == 1
    assert f"Mul: {SHARED} 0.1 MB" in folded.reasons


def test_a_kept_tensor_reads_its_weight():
    b = Builder()
    b.random(*LARGE, name="shared")
    x, z = levels(b, 2)
    b.op("Relu", b.op("Conv", z, "shared"), output="aside")
    folded = optimized(b.model(scaled(b, x, LARGE)), *SIZES, keep=["aside"])
    assert folded.ops == {"Conv": 2, "Relu": 1, "Mul": 1}


def test_copies_count_by_weight_whatever_stands_in_front():
    """Three layers of one weight, each behind a scale of its own."""
    b = Builder()
    b.random(*MIDDLE, name="shared")
    outputs = [
        b.op("Conv", b.op("Mul", x, b.random(C, 1, 1)), "shared", pads=PADS) for x in levels(b, 3)
    ]
    folded = optimized(b.model(*outputs), *SIZES)
    assert folded.ops == {"Conv": 3, "Mul": 3}
    assert SHARED in folded.reasons


def test_a_weight_that_stays_since_a_fold_is_refused_is_copied_no_more():
    """Two layers read one weight; one of them joins a branch that copies a larger one."""
    b = Builder()
    b.random(*LARGE, name="shared")
    b.random(LARGE[0], C, 5, 5, name="larger")
    x, y, z = levels(b, 3)
    both = b.op(
        "Add", b.op("Conv", x, "larger", pads=[2] * 4), b.op("Conv", x, "shared", pads=PADS)
    )
    outputs = [b.op("Relu", both), scaled(b, y, LARGE), b.op("Conv", z, "larger", pads=[2] * 4)]
    model = b.model(*outputs)
    folded = optimized(model, *SIZES)
    assert folded.ops == {"Conv": 4, "Add": 1, "Relu": 1, "Mul": 1}
    assert ratio(model, folded) <= 1.0


@pytest.mark.parametrize("op", ["Gemm", "MatMul", "ConvTranspose"])
def test_keeps_large_weight_of_other_layers(op):
    b = Builder()
    image = op == "ConvTranspose"
    b.random(*(LARGE if image else (128, 256)), name="shared")
    wide, channels = (64, C) if image else (128, 256)
    outputs = []
    for number in range(3):
        x = b.input("n", wide, *(("h", "w") if image else ()), name=f"x{number}")
        y = b.op(op, x, "shared")
        outputs.append(b.op("Mul", y, b.random(channels, *((1, 1) if image else ()))))
    folded = optimized(b.model(*outputs), *SIZES)
    assert folded.ops == {op: 3, "Mul": 3}


def test_another_shared_constant_does_not_tie_layers():
    """Vectors and weights that everybody shares: the layers with weights of their own fold."""
    b = Builder()
    b.random(*LARGE, name="shared")
    scale = b.random(LARGE[0], 1, 1)
    outputs = []
    for number, x in enumerate(levels(b, 4)):
        weight = "shared" if number < 2 else b.random(*LARGE)
        y = b.op("Mul", b.op("Conv", x, weight, pads=PADS), scale)
        outputs.append(b.op("Mul", y, b.random(LARGE[0], 1, 1)) if number < 2 else y)
    folded = optimized(b.model(*outputs), *SIZES)
    assert folded.ops == {"Conv": 4, "Mul": 2}


def test_parts_of_a_layer_replace_its_weight_together():
    b = Builder()
    (x,) = levels(b, 1)
    y = b.conv(x, C, 2 * LARGE[0], bias=False, pads=PADS)
    parts = b.ops("Split", y, outputs=2, axis=1)
    outputs = [b.op("Relu", b.batch_norm(part, LARGE[0])) for part in parts]
    model = b.model(*outputs)
    assert ratio(model, optimized(model, *SIZES)) <= 1.0


# What does not grow -----------------------------------------------------------------------------


def towers(norms):
    """Two towers that share two large layers, and each norm that `norms` makes one of."""
    b = Builder()
    b.random(C, C, 5, 5, name="first")
    b.random(C, C, 5, 5, name="second")
    statistics = {}
    outputs = []
    for tower, x in enumerate(levels(b, 2)):
        y = x
        for layer in ("first", "second"):
            y = b.op("Conv", y, layer, pads=[2, 2, 2, 2])
            key = layer if norms == "shared" else f"{layer}{tower}"
            if key not in statistics:
                statistics[key] = [b.random(C), b.random(C), b.random(C), b.positive(C)]
            y = b.op("Relu", b.op("BatchNormalization", y, *statistics[key]))
        outputs.append(y)
    model = b.model(*outputs)
    return model, optimized(model, *SIZES)


def test_towers_that_share_everything_share_what_is_made_of_it():
    model, folded = towers("shared")
    assert folded.ops == {"Conv": 4, "Relu": 4}
    assert ratio(model, folded) <= 1.0
    assert len(folded.model.graph.initializer) == 4


def test_keeps_towers_with_norms_of_their_own():
    model, folded = towers("own")
    assert folded.ops == {"Conv": 4, "Relu": 4, "BatchNormalization": 4}
    assert ratio(model, folded) <= 1.0


def test_layers_made_of_the_same_constants_are_not_taken_for_equal():
    """One tower multiplies by what the other divides by."""
    b = Builder()
    b.random(*SMALL, name="shared")
    scale = b.positive(SMALL[0], 1, 1)
    first, second = levels(b, 2)
    outputs = [
        b.op(op, b.op("Conv", x, "shared", pads=PADS), scale)
        for op, x in (("Mul", first), ("Div", second))
    ]
    folded = optimized(b.model(*outputs), *SIZES)
    assert folded.ops == {"Conv": 2}
    assert len(folded.model.graph.initializer) == 2


def test_a_weight_that_is_nearly_another_is_written():
    """The scale is one rounding above 1."""
    b = Builder()
    weight = b.random(*SMALL)
    (x,) = levels(b, 1)
    y = b.op("Mul", b.op("Conv", x, weight), b.constant(1 + 2.0**-23))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 1}
    assert [tensor.name for tensor in folded.model.graph.initializer] != [weight]


def test_a_weight_that_is_a_part_of_another_is_written():
    """Taps of zeros around 2x2 others are left out."""
    b = Builder()
    padded = np.pad(b.values(4, 3, 2, 2), ((0, 0), (0, 0), (0, 1), (0, 1)))
    b.constant(padded, "padded")
    x = b.input("n", 3, "h", "w")
    y = b.op("Add", b.op("Conv", x, "padded", pads=PADS), b.random(4, 1, 1))
    folded = optimized(b.model(y), *SIZES)
    assert folded.ops == {"Conv": 1}
    assert {tuple(t.dims) for t in folded.model.graph.initializer} == {(4,), (4, 3, 2, 2)}


def test_a_shift_behind_a_shared_layer_needs_no_copy():
    b = Builder()
    b.random(*LARGE, name="shared")
    outputs = [
        b.op("Add", b.op("Conv", x, "shared", pads=PADS), b.random(LARGE[0], 1, 1))
        for x in levels(b, 3)
    ]
    model = b.model(*outputs)
    folded = optimized(model, *SIZES)
    assert folded.ops == {"Conv": 3}
    assert {node.input[1] for node in folded.model.graph.node} == {"shared"}
    assert ratio(model, folded) <= 1.01


def test_a_shift_joins_a_layer_that_shares_its_weight_with_scaled_ones():
    """The shift has another reader, so that a few bytes are added all the same."""
    b = Builder()
    b.random(*LARGE, name="shared")
    shift = b.random(LARGE[0], 1, 1)
    x, y, z = levels(b, 3)
    shifted = b.op("Add", b.op("Conv", x, "shared", pads=PADS), shift)
    other = b.op("Relu", b.op("Mul", b.input("n", LARGE[0], "h", "w"), shift))
    model = b.model(shifted, scaled(b, y, LARGE), scaled(b, z, LARGE), other)
    assert optimized(model, *SIZES).ops == {"Conv": 3, "Mul": 3, "Relu": 1}


def test_a_shift_joins_a_shared_layer_in_front_of_a_norm_that_does_not():
    b = Builder()
    b.random(*LARGE, name="shared")
    outputs = []
    for x in levels(b, 3):
        y = b.op("Add", b.op("Conv", x, "shared", pads=PADS), b.random(LARGE[0], 1, 1))
        outputs.append(b.batch_norm(y, LARGE[0]))
    model = b.model(*outputs)
    folded = optimized(model, *SIZES)
    assert sum(folded.ops.values()) == 6
    assert folded.ops["Add"] == 0
    assert ratio(model, folded) <= 1.0


# Branches ---------------------------------------------------------------------------------------


def heads(count, branches, shared):
    """Sums of branches, each a Conv of its kernel and a norm, on several levels."""
    b = Builder()
    outputs = []
    weights = [b.random(C, C, kernel, kernel) for kernel in branches]
    for x in levels(b, count):
        terms = []
        for weight, kernel in zip(weights, branches, strict=True):
            own = weight if shared else b.random(C, C, kernel, kernel)
            y = b.op("Conv", x, own, pads=[kernel // 2] * 4)
            terms.append(b.batch_norm(y, C))
        outputs.append(b.op("Relu", b.op("Sum", *terms)))
    model = b.model(*outputs)
    return model, optimized(model, *SIZES)


@pytest.mark.parametrize("branches", [[5, 1], [5, 3, 1], [5, 5, 5, 5]])
def test_folds_branches_with_weights_of_their_own(branches):
    model, folded = heads(2, branches, shared=False)
    assert folded.ops == {"Conv": 2, "Relu": 2}
    assert ratio(model, folded) <= 1.0


def test_folds_shared_branches_where_that_halves_their_time():
    model, folded = heads(3, [5, 5, 5], shared=True)
    assert folded.ops == {"Conv": 3, "Relu": 3}
    assert ratio(model, folded) <= 1.1


def test_folds_shared_branches_into_copies_where_that_halves_their_time():
    model, folded = heads(5, [5, 5], shared=True)
    assert folded.ops == {"Conv": 5, "Relu": 5}
    assert ratio(model, folded) > 1.5


def test_keeps_shared_branches_where_little_is_gained():
    model, folded = heads(3, [5, 1], shared=True)
    assert folded.ops["Conv"] >= 3
    assert folded.ops["BatchNormalization"] > 0
    assert ratio(model, folded) <= 1.1
    assert "is shared: folding would add" in folded.reasons


def test_a_kernel_larger_than_its_parts_is_no_copy():
    """Seven taps become nine, 448 KiB 576; the scale behind them has another reader."""
    b = Builder()
    x = b.input("n", 128, "h", "w", name="x")
    scale = b.random(128, 1, 1)
    kernels = ((1, 3), (3, 1), (1, 1))
    terms = [b.conv(x, 128, 128, k, pads=[n // 2 for n in k] * 2) for k in kernels]
    y = b.op("Relu", b.op("Mul", b.op("Sum", *terms), scale))
    model = b.model(b.op("Mul", y, scale))
    folded = optimized(model, *SIZES)
    assert folded.ops == {"Conv": 1, "Relu": 1, "Mul": 1}
    assert ratio(model, folded) > 1.2
