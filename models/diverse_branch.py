"""Diverse Branch Blocks on ResNet-18.

Ding, Zhang, Han, Ding: "Diverse Branch Block: Building a Convolution as an Inception-like Unit",
CVPR 2021 (arXiv:2103.13425).

A block takes the place of each 3x3 convolution with its BatchNorm. In training it is
BN(conv3x3(x)) + BN(conv1x1(x)) + BN(average3x3(BN(conv1x1(x)))) + BN(conv3x3(BN(conv1x1(x)))), in
deployment conv3x3(x). Between two steps the padding is the inner BatchNorm's response to zero, as
if the zeros had been put around x: so both are one convolution at the border too.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.branches import Block, ConvNorm, ParallelBranches, fold_norm, reparameterize
from models.resnet import ResNet18


def pad_with(x: Tensor, values: Tensor, width: int) -> Tensor:
    """x in a rim of `values` (C,): (N, C, H, W) -> (N, C, H + 2 width, W + 2 width).

    Assigned in place, as in the authors' code, so that exports have the nodes that theirs have.
    """
    y = functional.pad(x, [width] * 4)
    rim = values.view(1, -1, 1, 1)
    y[:, :, 0:width, :] = rim
    y[:, :, -width:, :] = rim
    y[:, :, :, 0:width] = rim
    y[:, :, :, -width:] = rim
    return y


def identity_kernel(channels: int, groups: int = 1) -> Tensor:
    """The weight (C, C / groups, 1, 1) of a convolution that copies."""
    return torch.eye(channels // groups).repeat(groups, 1)[:, :, None, None]


@torch.no_grad()
def merge_steps(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], stride: int | tuple[int, ...] = 1
) -> nn.Conv2d:
    """The convolution equal to a pointwise one and a second one, a rim of biases between them.

    The paper's transform III: in each group, W[o, i] = sum_m W2[o, m] W1[m, i] and
    b = sum_mhw W2[o, m, h, w] b1[m] + b2.

    Args:
        first: weight (M, C_in / groups, 1, 1) and bias (M,).
        second: weight (C_out, M / groups, k, k), k odd, and bias (C_out,).
        stride: stride of the second.
    """
    groups = len(first[0]) // second[0].shape[1]
    weight1, bias1, weight2, bias2 = (w.unflatten(0, (groups, -1)) for w in (*first, *second))
    weight = torch.einsum("gomhw,gmiyx->goihw", weight2, weight1).flatten(0, 1)
    bias = torch.einsum("gomhw,gm->go", weight2, bias1) + bias2
    channels, group_width, size, _ = weight.shape
    conv = nn.Conv2d(group_width * groups, channels, size, stride, size // 2, groups=groups)
    conv.to(weight).weight.copy_(weight)
    conv.bias.copy_(bias.flatten())
    return conv


class NormAndPad(nn.Module):
    """BatchNorm, then a rim of its response to zero: (N, C, H, W) -> (N, C, H + 2 w, W + 2 w)."""

    def __init__(self, channels: int, width: int):
        """`width` is w, at least 1."""
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """The rim is shift - mean * gain / sqrt(var + eps)."""
        y, norm = self.norm(x), self.norm
        zero = norm.bias - norm.running_mean * norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return pad_with(y, zero, self.width)


class IdentityConv(nn.Module):
    """A pointwise convolution whose weight is I + W, W learned: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, groups: int):
        """Draws W like any convolution's weight; the authors begin with zero."""
        super().__init__()
        self.learned = nn.Conv2d(channels, channels, 1, groups=groups, bias=False)
        self.register_buffer("identity", identity_kernel(channels, groups))

    @property
    def weight(self) -> Tensor:
        """I + W, of shape (C, C / groups, 1, 1)."""
        return self.learned.weight + self.identity

    def forward(self, x: Tensor) -> Tensor:
        """Convolves with I + W."""
        return functional.conv2d(x, self.weight, groups=self.learned.groups)


class AveragePool(nn.AvgPool2d):
    """Average pooling and the kernel that it is equal to, which shares the groups of its block."""

    def __init__(self, channels: int, size: int, stride: int, padding: int, groups: int):
        """Averages `size` x `size` pixels, padding included."""
        super().__init__(size, stride, padding)
        self.register_buffer("identity", identity_kernel(channels, groups))

    @property
    def weight(self) -> Tensor:
        """The paper's transform V, of shape (C, C / groups, size, size)."""
        size = self.kernel_size
        return self.identity.expand(-1, -1, size, size) / size**2


class TwoSteps(nn.Sequential, Block):
    """BN(second(BN(first(x)))), BN(first(x)) in its rim: (N, C_in, H, W) -> (N, C_out, *S)."""

    def __init__(self, first: nn.Module, second: nn.Module):
        """Both have a weight; `first` is pointwise, `second` has an odd kernel and no padding."""
        super().__init__(
            OrderedDict(
                first=first,
                pad=NormAndPad(len(first.weight), second.weight.shape[-1] // 2),
                second=second,
                norm=nn.BatchNorm2d(len(second.weight)),
            )
        )

    def to_conv(self) -> nn.Conv2d:
        """The equal convolution with bias."""
        zero = self.first.weight.new_zeros(())
        first = fold_norm(self.first.weight, zero, self.pad.norm)
        second = fold_norm(self.second.weight, zero, self.norm)
        return merge_steps(first, second, self.second.stride)


class PoolNorm(nn.Sequential, Block):
    """BN(average(x)): (N, C, H, W) -> (N, C, H / stride, W / stride)."""

    def __init__(self, channels: int, size: int, stride: int):
        """Averages `size` x `size` pixels, padded so that the centre stays on the output's own."""
        pool = AveragePool(channels, size, stride, size // 2, channels)
        super().__init__(OrderedDict(pool=pool, norm=nn.BatchNorm2d(channels)))

    def to_conv(self) -> nn.Conv2d:
        """The equal depthwise convolution with bias."""
        zero = self.norm.bias.new_zeros(())
        copy = self.pool.identity, torch.zeros_like(self.norm.bias)
        return merge_steps(copy, fold_norm(self.pool.weight, zero, self.norm), self.pool.stride)


class DiverseBranchBlock(ParallelBranches):
    """The sum of the four branches: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, groups: int = 1, size: int = 3
    ):
        """Builds the training form.

        Args:
            in_channels: C_in.
            out_channels: C_out.
            stride: stride along both axes.
            groups: groups of all convolutions. As in the authors' code, where there are C_out (and
                C_in is C_out) the pointwise branch and the one before the pooling are left out, and
                the inner channels are twice as many.
            size: kernel size along both axes, odd and more than 1.
        """
        branches: list[nn.Module] = [
            ConvNorm(in_channels, out_channels, (size, size), stride, groups)
        ]
        if groups < out_channels:
            inner, first = in_channels, IdentityConv(in_channels, groups)
            pointwise = nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=False)
            branches += [
                ConvNorm(in_channels, out_channels, (1, 1), stride, groups),
                TwoSteps(pointwise, AveragePool(out_channels, size, stride, 0, groups)),
            ]
        else:
            inner = 2 * in_channels
            first = nn.Conv2d(in_channels, inner, 1, groups=groups, bias=False)
            branches.append(PoolNorm(out_channels, size, stride))
        second = nn.Conv2d(inner, out_channels, size, stride, groups=groups, bias=False)
        super().__init__([*branches, TwoSteps(first, second)])

    def to_conv(self) -> nn.Module:
        """The equal convolution with bias."""
        return ParallelBranches(map(reparameterize, self.branches)).to_conv()


def dbb_resnet18() -> ResNet18:
    """ResNet-18 with its sixteen 3x3 convolutions as Diverse Branch Blocks."""
    return ResNet18(DiverseBranchBlock)
