"""Blocks whose convolutions are written as data movement, exported: each becomes one Conv.

What is affine but no convolution stays, with that reason.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional

import models
import onnxfuse
from models.diverse_branch import DiverseBranchBlock
from models.dsconv import DSConv2d
from models.edge_oriented import EdgeOrientedBlock
from models.exporting import FORMS, Form
from models.im2col import (
    GatherConv2d,
    GroupedSliceConv2d,
    SliceConv2d,
    StridedConv2d,
    UnfoldConv2d,
)
from tests.integration.exported import Fused, count

pytestmark = pytest.mark.usefixtures("one_thread")

Make = Callable[[], nn.Module]

SHAPE = (2, 6, 9, 10)
SHAPES = (SHAPE, (3, 6, 12, 8), (1, 6, 20, 33))

ODD = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)}
WIDE = {"kernel_size": (3, 3), "stride": (1, 2), "padding": (2, 2), "dilation": (2, 2)}

HAND_WRITTEN: dict[str, Make] = {
    **{
        f"{name}_{geometry}": partial(make, 6, 4, **options)
        for name, make in (
            ("slices", SliceConv2d),
            ("unfold", UnfoldConv2d),
            ("gather", GatherConv2d),
            ("strided", StridedConv2d),
        )
        for geometry, options in (("odd", ODD), ("wide", WIDE))
    },
    "grouped_slices": partial(GroupedSliceConv2d, 6, 4, (3, 3), groups=2),
    "depthwise_slices": partial(GroupedSliceConv2d, 6, 6, (3, 3), padding=(1, 1), groups=6),
}

BLOCKS: dict[str, Make] = {
    "diverse": partial(DiverseBranchBlock, 6, 9),
    "diverse_stride_groups": partial(DiverseBranchBlock, 6, 9, 2, 3),
    "diverse_depthwise": partial(DiverseBranchBlock, 6, 6, 1, 6),
    "diverse_5x5": partial(DiverseBranchBlock, 6, 6, size=5),
    "edge": partial(EdgeOrientedBlock, 6, 8),
    "edge_skip": partial(EdgeOrientedBlock, 6, 6, skip=True),
}


def dsconv(conv: Make, **options) -> nn.Module:
    return DSConv2d(conv(), **options)


DISTRIBUTION_SHIFT: dict[str, Make] = {
    "kernel_shift": partial(dsconv, partial(nn.Conv2d, 6, 8, 3, padding=1), block_size=4),
    "both_shifts": partial(
        dsconv,
        partial(nn.Conv2d, 6, 8, 3, stride=2, bias=False),
        block_size=4,
        block_shift=True,
        channel_shift=True,
    ),
    "groups": partial(
        dsconv, partial(nn.Conv2d, 6, 9, (1, 3), groups=3, dilation=2), block_size=2, bits=3
    ),
    "beyond_free_growth": partial(
        dsconv, partial(nn.Conv2d, 6, 900, 3), block_size=4, block_shift=True
    ),
}


class Case(NamedTuple):
    name: str
    make: Make
    form: Form
    dynamic: bool

    @property
    def is_frozen(self) -> bool:
        """True where the exporter writes the example's sizes into constants all the same."""
        return self.form != "dynamo" and self.name in BLOCKS

    @property
    def marks(self) -> tuple[pytest.MarkDecorator, ...]:
        """torch's default exporter takes seconds, and some ten for blocks at symbolic sizes."""
        if self.name == "edge_skip" and self.form != "dynamo":
            return (pytest.mark.slow,)
        if self.name in ("diverse_5x5", "edge") and self.form == "script":
            return (pytest.mark.slow,)
        if self.form != "dynamo" or self.name == "unfold_wide":
            return ()
        in_ci = not self.dynamic and not self.name.endswith("_odd")
        in_ci |= self.dynamic and self.name in ("gather_wide", "slices_odd", "strided_odd")
        return (pytest.mark.slow if in_ci else pytest.mark.nightly,)


CASES = [
    pytest.param(
        case,
        id=f"{name}-{form}-{'dynamic' if dynamic else 'fixed'}",
        marks=case.marks,
    )
    for name, make in (HAND_WRITTEN | BLOCKS | DISTRIBUTION_SHIFT).items()
    for form in FORMS
    for dynamic in (False, True)
    for case in [Case(name, make, form, dynamic)]
    # the tracing exporter takes the strides of the example for constants: wrong at other sizes
    if not (dynamic and form != "dynamo" and name.startswith("strided"))
]


def built(make: Make) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = make()
    models.randomize_statistics(module, (8, *SHAPE[1:]))
    return module


@pytest.mark.parametrize("case", CASES)
def test_becomes_one_conv(case):
    shapes = SHAPES if case.dynamic and not case.is_frozen else (SHAPE,) * 3
    fused = Fused.of(built(case.make), case.form, case.dynamic, shapes)
    assert count(fused.result) == Counter(["Conv"])
    fused.assert_outputs_agree()
    fused.assert_fixed_point()
    deploy = models.reparameterize(fused.module)
    weights = {tuple(t.dims) for t in fused.result.graph.initializer}
    assert tuple(deploy.weight.shape) in weights


@pytest.mark.slow
def test_a_product_is_priced_by_its_symbolic_length():
    """With 40 channels a plan that takes the product for a short one looked cheaper."""
    make = partial(GatherConv2d, 40, 40, (3, 3), padding=(1, 1))
    fused = Fused.of(make().eval(), "dynamo", True, [(2, 40, 9, 10), (1, 40, 12, 8)])
    assert count(fused.result) == Counter(["Conv"])
    fused.assert_outputs_agree()


# --- affine, but no convolution ---


class Between(nn.Module):
    """A 1x1 and a 3x3 convolution with something between them."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.first, self.last = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 3)
        self.between = between

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.between(self.first(x)))


def masked(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, :, 2:4, 3:5] = 0
    return y


OTHERS = {
    "mask": (masked, "depends on the position"),
    "flip": (lambda x: torch.flip(x, (3,)), "backwards"),
    "roll": (lambda x: torch.roll(x, 2, 2), "a roll"),
    "circular": (lambda x: functional.pad(x, (1, 1, 1, 1), "circular"), "a roll"),
    "reflect": (lambda x: functional.pad(x, (1, 1, 1, 1), "reflect"), "reflected"),
    "replicate": (lambda x: functional.pad(x, (1, 1, 1, 1), "replicate"), "repeated padding"),
    "resize": (lambda x: functional.interpolate(x, scale_factor=2), "a resize"),
    "repeat": (lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3), "resize"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("form", ["script", pytest.param("dynamo", marks=pytest.mark.slow)])
def test_refuses_what_is_no_convolution(name, form):
    between, reason = OTHERS[name]
    fused = Fused.of(Between(between).eval(), form, False, (SHAPE,))
    assert count(fused.result)["Conv"] >= 2
    fused.assert_outputs_agree()
    refusals = onnxfuse.optimize(fused.original).report.refusals
    assert any(reason in refused.reason for refused in refusals), refusals
