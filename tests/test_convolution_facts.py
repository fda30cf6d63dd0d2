"""Small facts about convolutions, in PyTorch and by definition, and what onnxfuse makes of them."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import onnxfuse
from models.branches import CONVS, ParallelBranches
from tests.integration.exported import LARGEST_DISTANCE, Fused, count, distances

FUNCTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}

# Sums of up to 3 * 4**3 products, each below 100: in float64 off by less than 192**2 * 100 / 2**53.
TOLERANCE = {"rtol": 0, "atol": 1e-9}

# Where the two sides differ, torch pads a copy, and says so.
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]


# --- the definition ---


def correlate(x, weight, dilation, pads):
    """y[n, o, p] = sum of weight[o, c, k] * x[n, c, p + dilation * k - before] over c and k.

    x (N, C, *S), weight (C_out, C, *K), `pads` (before, after) for each spatial axis; x is 0
    outside. Each output pixel by itself, as the sum over its window.
    """
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    reach = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    size = [n - r + 1 for n, r in zip(x.shape[2:], reach, strict=True)]
    y = np.empty((len(x), len(weight), *size))
    for pixel in np.ndindex(*size):
        steps = zip(pixel, reach, dilation, strict=True)
        window = x[(..., *(slice(p, p + r, d) for p, r, d in steps))]
        y[(..., *pixel)] = window.reshape(len(x), -1) @ weight.reshape(len(weight), -1).T
    return y


def same_pads(kernel, dilation):
    """(before, after) with before + after = dilation * (size - 1), the odd one after."""
    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return [(span // 2, span - span // 2) for span in spans]


def conv(x, weight, **options):
    """torch's convolution, of numpy arrays."""
    function = FUNCTIONS[x.ndim - 2]
    return function(torch.from_numpy(x), torch.from_numpy(weight), **options).numpy()


class Case(NamedTuple):
    """x (N, C, *S), weight (C_out, C / groups, *K), and a dilation for each spatial axis."""

    x: np.ndarray
    weight: np.ndarray
    dilation: tuple[int, ...]

    @property
    def same(self):
        return {"padding": "same", "dilation": self.dilation}


@st.composite
def cases(draw, groups=1, largest_kernel=4):
    rank = draw(st.integers(1, 3))

    def sizes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    size, kernel, dilation = sizes(1, 6), sizes(1, largest_kernel), sizes(1, 3)
    batch, inputs, outputs = (draw(st.integers(1, 3)) for _ in range(3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = random.standard_normal((batch, groups * inputs, *size))
    return Case(x, random.standard_normal((groups * outputs, inputs, *kernel)), dilation)


checked = settings(max_examples=60, deadline=None)


# --- padding="same" ---


@checked
@given(cases())
def test_same_padding_keeps_the_size_whatever_the_kernel(case):
    y = conv(case.x, case.weight, **case.same)
    assert y.shape[2:] == case.x.shape[2:]
    pads = same_pads(case.weight.shape[2:], case.dilation)
    np.testing.assert_allclose(y, correlate(case.x, case.weight, case.dilation, pads), **TOLERANCE)


@pytest.mark.parametrize("rank", FUNCTIONS)
@pytest.mark.parametrize(
    ("taps", "dilation", "before", "after"),
    [
        (1, 1, 0, 0),
        (2, 1, 0, 1),
        (3, 1, 1, 1),
        (4, 1, 1, 2),
        (2, 3, 1, 2),
        (4, 3, 4, 5),
        (2, 2, 1, 1),
    ],
)
def test_of_an_odd_number_of_zeros_one_more_goes_to_the_end(rank, taps, dilation, before, after):
    # Over ones, a kernel of ones counts the taps inside the image: all of them where it is whole.
    length = before + after + 4
    y = conv(
        np.ones((1, 1, *[length] * rank)),
        np.ones((1, 1, *[taps] * rank)),
        padding="same",
        dilation=dilation,
    )
    whole = np.argwhere(y[0, 0] == taps**rank)
    assert whole.min() == before
    assert whole.max() == length - 1 - after


# --- groups ---


@checked
@given(cases(groups=2))
def test_two_groups_are_two_convolutions_of_halves(case):
    y = conv(case.x, case.weight, groups=2, **case.same)
    pads = same_pads(case.weight.shape[2:], case.dilation)
    halves = zip(np.split(case.x, 2, axis=1), np.split(case.weight, 2), strict=True)
    parts = [correlate(x, weight, case.dilation, pads) for x, weight in halves]
    np.testing.assert_allclose(y, np.concatenate(parts, axis=1), **TOLERANCE)


@checked
@given(cases(largest_kernel=1))
def test_pointwise_is_one_matrix_for_every_pixel(case):
    y = conv(case.x, case.weight)
    matrix = case.weight.reshape(case.weight.shape[:2])
    pixels = np.moveaxis(case.x, 1, -1)
    np.testing.assert_allclose(np.moveaxis(y, 1, -1), pixels @ matrix.T, **TOLERANCE)


@checked
@given(cases(), st.integers(1, 3))
def test_depthwise_is_every_channel_by_itself(case, copies):
    channels = case.x.shape[1]
    weight = np.stack([case.weight[:1, c % case.weight.shape[1]] for c in range(channels * copies)])
    y = conv(case.x, weight, groups=channels, **case.same)
    pads = same_pads(weight.shape[2:], case.dilation)
    for output in range(channels * copies):
        source = output // copies
        alone = correlate(case.x[:, source : source + 1], weight[output][None], case.dilation, pads)
        np.testing.assert_allclose(y[:, output : output + 1], alone, **TOLERANCE)


# --- linearity ---


@checked
@given(cases(), st.floats(-4, 4))
def test_linear_in_the_input(case, factor):
    x, other = case.x, np.flip(case.x, axis=-1).copy()
    together = conv(x + factor * other, case.weight, **case.same)
    apart = conv(x, case.weight, **case.same) + factor * conv(other, case.weight, **case.same)
    np.testing.assert_allclose(together, apart, **TOLERANCE)


@checked
@given(cases(), st.floats(-4, 4))
def test_linear_in_the_weight(case, factor):
    weight, other = case.weight, np.flip(case.weight, axis=-1).copy()
    together = conv(case.x, weight + factor * other, **case.same)
    apart = conv(case.x, weight, **case.same) + factor * conv(case.x, other, **case.same)
    np.testing.assert_allclose(together, apart, **TOLERANCE)


# --- what onnxfuse makes of them ---

SHAPES = {1: ((2, 6, 11), (1, 6, 8)), 2: ((2, 6, 7, 10), (3, 6, 6, 5)), 3: ((2, 6, 4, 5, 7),) * 2}


class Parts(nn.Module):
    """A convolution for each part of the channels, joined."""

    def __init__(self, parts: int, size: int):
        super().__init__()
        width = 6 // parts
        self.convs = nn.ModuleList(
            nn.Conv2d(width, 2 * width, size, padding="same") for _ in range(parts)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = x.chunk(len(self.convs), dim=1)
        return torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=1)


class Halved(nn.Module):
    """One convolution of both halves of the channels, joined: the weight is shared."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding="same")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.conv(half) for half in x.chunk(2, dim=1)], dim=1)


class Sum(nn.Module):
    """conv(x) + factor * conv(x), in x or in relu(x)."""

    def __init__(self, factor: float, activated: bool):
        super().__init__()
        self.first = nn.Conv2d(6, 8, 3, padding="same")
        self.second = nn.Conv2d(6, 8, 3, padding="same")
        self.factor, self.activated = factor, activated

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x) + self.factor * self.second(x.relu() if self.activated else x)


def fuse(module: nn.Module, rank: int = 2, dynamic: bool = True) -> Fused:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3)
    shapes = SHAPES[rank] if dynamic else SHAPES[rank][:1]
    fused = Fused.of(module.eval(), "script", dynamic, shapes)
    assert max(distances(fused.result_outputs, fused.true_outputs)) < LARGEST_DISTANCE
    fused.assert_fixed_point()
    return fused


def only_conv(fused: Fused) -> dict[str, object]:
    """The attributes of the Conv that is all that is left."""
    assert count(fused.result) == Counter(["Conv"])
    attributes = fused.result.graph.node[0].attribute
    return {a.name: onnx.helper.get_attribute_value(a) for a in attributes}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_convolutions_of_parts_of_the_channels_become_one_with_groups(parts, size, dynamic):
    fused = fuse(Parts(parts, size), dynamic=dynamic)
    assert only_conv(fused)["group"] == parts
    weights = {tuple(t.dims) for t in fused.result.graph.initializer}
    assert (12, 6 // parts, size, size) in weights


def test_one_convolution_of_both_halves_becomes_one_with_groups():
    assert only_conv(fuse(Halved()))["group"] == 2


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize("rank", FUNCTIONS)
def test_even_kernels_with_same_padding_become_one(rank, groups, dynamic):
    convs = [CONVS[rank](6, 6, size, padding="same", groups=groups) for size in (4, 2)]
    attributes = only_conv(fuse(ParallelBranches([*convs, nn.Identity()]), rank, dynamic))
    assert attributes["kernel_shape"] == [4] * rank
    assert attributes["pads"] == [1] * rank + [2] * rank
    assert attributes["group"] == groups


def test_dilated_even_kernels_with_same_padding_become_one():
    """Which ONNX Runtime can run, and not the original: auto_pad with dilations."""
    convs = [nn.Conv2d(6, 6, 2, padding="same", dilation=d) for d in (1, 3)]
    attributes = only_conv(fuse(ParallelBranches([*convs, nn.Identity()])))
    assert attributes["kernel_shape"] == [4, 4]
    assert attributes["pads"] == [1, 1, 2, 2]


@pytest.mark.parametrize("factor", [1.0, -0.5])
def test_a_weighted_sum_of_convolutions_of_one_input_becomes_one(factor):
    only_conv(fuse(Sum(factor, activated=False)))


def test_refuses_convolutions_of_two_inputs():
    fused = fuse(Sum(1.0, activated=True))
    assert count(fused.result)["Conv"] == 2
    refusals = onnxfuse.optimize(fused.original).report.refusals
    assert any("no common source" in refused.reason for refused in refusals)
