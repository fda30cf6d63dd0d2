"""Convolutions written by hand, and the evaluator's, against torch.nn.functional.conv2d."""

from typing import NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn
from torch.nn import functional

from models.branches import reparameterize
from models.dsconv import DSConv2d, quantize
from models.exporting import FORMS, export
from models.im2col import (
    GatherConv2d,
    GroupedSliceConv2d,
    SliceConv2d,
    StridedConv2d,
    UnfoldConv2d,
)
from onnxfuse.reference import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")


class Case(NamedTuple):
    """A convolution and the (H, W) of its input, which is never square."""

    in_channels: int = 4
    out_channels: int = 6
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    size: tuple[int, int] = (9, 10)

    def geometry(self):
        return (self.in_channels, self.out_channels, *self[2:6])


CASES = {
    "valid": Case(),
    "same": Case(padding=(1, 1)),
    "pointwise": Case(kernel=(1, 1)),
    "pointwise_stride": Case(kernel=(1, 1), stride=(2, 3)),
    "even_kernel": Case(kernel=(2, 4), padding=(1, 2)),
    "wide_kernel": Case(kernel=(1, 5), padding=(0, 2)),
    "tall_kernel": Case(kernel=(5, 1), padding=(2, 0)),
    "one_axis_padded": Case(kernel=(3, 2), stride=(2, 1), padding=(1, 0)),
    "stride_from_odd": Case(stride=(2, 2), padding=(1, 1), size=(9, 11)),
    "stride_from_even": Case(stride=(2, 2), padding=(1, 1), size=(8, 10)),
    "stride_leaves_rest": Case(stride=(3, 2), size=(11, 10)),
    "stride_beyond_kernel": Case(kernel=(2, 1), stride=(3, 4), size=(8, 11)),
    "dilation": Case(dilation=(2, 3), padding=(2, 3)),
    "dilation_and_stride": Case(kernel=(2, 3), stride=(3, 2), padding=(2, 1), dilation=(3, 2)),
    "padding_beyond_kernel": Case(kernel=(2, 2), padding=(3, 4)),
    "one_output_pixel": Case(kernel=(5, 7), size=(5, 7)),
    "one_input_channel": Case(in_channels=1),
    "one_output_channel": Case(out_channels=1, padding=(1, 0)),
    "groups": Case(kernel=(3, 2), stride=(2, 1), padding=(1, 0), groups=2),
    "depthwise": Case(in_channels=6, out_channels=6, padding=(1, 1), groups=6),
    "depthwise_multiplier": Case(out_channels=12, dilation=(2, 1), groups=4),
}
MODULES = [SliceConv2d, UnfoldConv2d, GatherConv2d, StridedConv2d]
HAND_WRITTEN = [
    pytest.param(module, case, id=f"{module.__name__}-{name}")
    for name, case in CASES.items()
    for module in ([*MODULES, GroupedSliceConv2d] if case.groups == 1 else [GroupedSliceConv2d])
]
QUANTIZED = {
    "blocks_of_four": Case(in_channels=12),
    "last_block_smaller": Case(in_channels=10, kernel=(3, 2), stride=(2, 1), padding=(1, 0)),
    "one_block_not_full": Case(in_channels=3, dilation=(2, 1)),
    "pointwise": Case(in_channels=9, kernel=(1, 1)),
    "groups": Case(in_channels=10, groups=2, padding=(1, 1)),
    "depthwise": Case(in_channels=6, groups=6),
}
BLOCK = 4


def noise(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def build(module, case):
    """A module in float64 with the case's geometry, its weight and bias normal."""
    groups = {"groups": case.groups} if case.groups > 1 else {}
    built = module(*case.geometry(), **groups).double().eval()
    for seed, parameter in enumerate(built.parameters(), start=2):
        parameter.data = noise(*parameter.shape, seed=seed)
    return built


def distribution_shift(case, bits=4, **shifts):
    """A DSConv2d in float64 with normal shifts and bias."""
    module = DSConv2d(build(nn.Conv2d, case), BLOCK, bits, **shifts)
    for seed, (name, parameter) in enumerate(module.named_parameters(), start=4):
        if name != "block_scale":
            parameter.data = noise(*parameter.shape, seed=seed)
    return module


def convolve(x, weight, bias, case):
    return functional.conv2d(x, weight, bias, case.stride, case.padding, case.dilation, case.groups)


@torch.no_grad()
def assert_convolves(actual, x, weight, bias, case):
    """Checks `actual` against torch's convolution, to the rounding of sums of products.

    A sum of n products, in any order, is off by at most n eps / 2 (|weight| * |x| + |bias|) to
    first order, and there are two sides. A factor of two is left for the higher orders.
    """
    expected = convolve(x.double(), weight.double(), bias.double(), case)
    magnitude = convolve(x.abs().double(), weight.abs().double(), bias.abs().double(), case)
    terms = weight[0].numel() + 1
    tolerance = 2 * terms * torch.finfo(actual.dtype).eps * magnitude
    assert actual.shape == expected.shape
    assert ((actual - expected).abs() <= tolerance).all()


@pytest.mark.parametrize(("module", "case"), HAND_WRITTEN)
@torch.no_grad()
def test_hand_written_convolution(module, case):
    conv = build(module, case)
    x = noise(2, case.in_channels, *case.size)
    assert_convolves(conv(x), x, conv.weight, conv.bias, case)


@pytest.mark.parametrize("module", [*MODULES, GroupedSliceConv2d])
@torch.no_grad()
def test_input_that_is_not_contiguous(module):
    case = CASES["pointwise_stride"]  # no padding, which would copy
    conv = build(module, case)
    x = noise(*case.size, 3, case.in_channels).permute(2, 3, 0, 1)
    assert_convolves(conv(x), x, conv.weight, conv.bias, case)


@pytest.mark.parametrize(("module", "case"), HAND_WRITTEN)
@torch.no_grad()
def test_deploy_form_is_one_convolution(module, case):
    conv = build(module, case)
    deploy = reparameterize(conv)
    x = noise(2, case.in_channels, *case.size)
    assert type(deploy) is nn.Conv2d
    assert torch.equal(deploy(x), convolve(x, conv.weight, conv.bias, case))


def assert_exports(module, case, form, memory_format=torch.contiguous_format):
    """Checks the exported model, which has no Conv, against torch's convolution in float32."""
    conv = build(module, case).float()
    x = noise(2, case.in_channels, *case.size).float().to(memory_format=memory_format)
    model = export(conv, x, form, dynamic=False)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"input": x.numpy()})
    assert not any(node.op_type == "Conv" for node in model.graph.node)
    assert_convolves(torch.from_numpy(y), x, conv.weight, conv.bias, case)


@pytest.mark.parametrize(
    "form", [pytest.param(f, marks=pytest.mark.slow) if f == "dynamo" else f for f in FORMS]
)
@pytest.mark.parametrize("module", [*MODULES, GroupedSliceConv2d])
def test_exported_model(module, form):
    case = CASES["groups" if module is GroupedSliceConv2d else "one_axis_padded"]
    assert_exports(module, case, form)


@pytest.mark.parametrize("form", FORMS)
def test_exported_strides_do_not_depend_on_the_memory_format(form):
    assert_exports(StridedConv2d, CASES["valid"], form, torch.channels_last)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_convolution_of_the_evaluator(name):
    case = CASES[name]
    conv = build(nn.Conv2d, case)
    x = noise(2, case.in_channels, *case.size)
    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        strides=case.stride,
        pads=case.padding * 2,
        dilations=case.dilation,
        group=case.groups,
    )
    values = {"x": x.numpy(), "w": conv.weight.numpy(), "b": conv.bias.numpy()}
    y = torch.from_numpy(evaluate([node], values, 13)["y"])
    assert_convolves(y, x, conv.weight, conv.bias, case)


def shifted_weight(module):
    """CDS scale * (KDS scale * integer + KDS shift) + CDS shift, number by number."""
    tensors = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    integers = tensors["quantized"]
    weight = np.zeros(integers.shape)
    for out, channel, row, column in np.ndindex(*integers.shape):
        block = out, channel // BLOCK, row, column
        value = tensors["block_scale"][block] * float(integers[out, channel, row, column])
        if "block_shift" in tensors:
            value = value + tensors["block_shift"][block]
        if "channel_scale" in tensors:
            value = value * tensors["channel_scale"][out, 0, 0, 0]
            value = value + tensors["channel_shift"][out, 0, 0, 0]
        weight[out, channel, row, column] = value
    return torch.from_numpy(weight)


@pytest.mark.parametrize("channel_shift", [False, True], ids=["no_cds", "cds"])
@pytest.mark.parametrize("block_shift", [False, True], ids=["scale", "scale_and_shift"])
@pytest.mark.parametrize("name", QUANTIZED)
@torch.no_grad()
def test_distribution_shift_convolution(name, block_shift, channel_shift):
    case = QUANTIZED[name]
    module = distribution_shift(case, block_shift=block_shift, channel_shift=channel_shift)
    weight = shifted_weight(module)
    x = noise(2, case.in_channels, *case.size)
    # the same operations in the same order: not one rounding differs
    assert torch.equal(module.weight(), weight)
    assert_convolves(module(x), x, weight, module.bias, case)
    deploy = reparameterize(module)
    assert type(deploy) is nn.Conv2d
    assert torch.equal(deploy(x), convolve(x, weight, module.bias, case))


@torch.no_grad()
def test_distribution_shift_convolution_without_bias():
    module = DSConv2d(nn.Conv2d(6, 8, 3, bias=False), BLOCK)
    x = noise(2, 6, 7, 9).float()
    assert module.to_conv().bias is None
    assert torch.equal(module.to_conv()(x), module(x))


def test_new_shifts_change_nothing():
    conv = nn.Conv2d(6, 8, 3)
    shifted = DSConv2d(conv, BLOCK, block_shift=True, channel_shift=True)
    assert torch.equal(shifted.weight(), DSConv2d(conv, BLOCK).weight())


@pytest.mark.parametrize("bits", range(2, 9))
def test_quantization_is_a_least_squares_fit(bits):
    weight = noise(6, 10, 3, 2)
    q, scale = quantize(weight, BLOCK, bits)
    assert q.dtype == torch.int8
    assert scale.shape == (6, 3, 3, 2)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    for number, (w, integers) in enumerate(zip(weight.split(4, 1), q.split(4, 1), strict=True)):
        integers = integers.double()
        assert (integers.amin(1) == low).all()
        assert (integers <= high).all()
        # the residual of a least squares fit is orthogonal to what was fitted, up to the some 20
        # roundings of eps / 2 in the scale and in the residual's at most 4 products
        products = (w - scale[:, [number]] * integers) * integers
        bound = 16 * torch.finfo(w.dtype).eps * (w * integers).abs().sum(1)
        assert (products.sum(1).abs() <= bound).all()


def test_quantization_is_exact_for_integers_times_a_power_of_two():
    integers = torch.tensor([-8, 7, 0, 3, 5, -8])
    weight = torch.cat([integers[:4] * 0.25, integers[4:] * -2.0]).reshape(1, 6, 1, 1)
    q, scale = quantize(weight, BLOCK, bits=4)
    assert torch.equal(q.flatten(), integers.to(torch.int8))
    assert torch.equal(scale.flatten(), torch.tensor([0.25, -2.0]))


def test_quantization_of_opposite_peaks_stays_in_range():
    q, _ = quantize(torch.tensor([1.0, -1.0, 0.5]).reshape(1, 3, 1, 1), BLOCK, bits=8)
    assert q.flatten().tolist() == [-128, 127, -64]


def test_quantization_of_zeros():
    q, scale = quantize(torch.zeros(2, 5, 1, 3), BLOCK, bits=4)
    assert not q.any()
    assert torch.equal(scale, torch.zeros(2, 2, 1, 3))


@pytest.mark.parametrize("bits", [1, 9])
def test_refuses_bits_that_are_not_supported(bits):
    with pytest.raises(ValueError, match=f"bits is {bits}"):
        DSConv2d(nn.Conv2d(6, 8, 3), BLOCK, bits)
