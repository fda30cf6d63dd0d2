"""A small classifier of depthwise separable layers, in the manner of PP-LCNetV3.

Cui, Gao, Wei, et al.: "PP-LCNet: A Lightweight CPU Convolutional Neural Network",
arXiv:2109.15099, 2021: depthwise and pointwise layers with hard-swish, larger kernels and
squeeze-and-excitation in the last blocks alone, no skips. PaddleOCR's PP-LCNetV3 (PaddlePaddle,
github.com/PaddlePaddle/PaddleOCR, 2023) sums branches in each layer, as MobileOne does, and learns
two scalars a and b, a x + b, in front of each activation and behind it. Hard-swish, and the hard
sigmoid of the excitation: Howard et al.: "Searching for MobileNetV3", ICCV 2019.

A layer in training is hardswish(a (BN(conv1x1(x)) + BN(x) + BN(conv(x)) + ...) + b), the first
branch only where the other kernels are larger, the second where the shape stays the same; without
the activation if it has a stride. In deployment it is hardswish(conv(x)). What stands behind an
activation is in the next convolution too, where that is pointwise. Where it is padded, only a can
be: outside the image are zeros, not b, so that x + b / a stays.

Sizes are ours, small. Unlike the authors', these layers have nothing behind an activation that
squeeze-and-excitation or the last pooling reads: no convolution follows directly that could take it
in, and the deploy form would keep it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.branches import Block, ConvNorm, ParallelBranches
from models.classifier import Classifier
from models.mobileone import mobileone_branches

STEM_CHANNELS = 16
CONV_BRANCHES = 2
SQUEEZE = 4
# The authors begin with a = 1 and b = 0, with which a fold that forgets one of them goes unnoticed.
SCALE_DEVIATION = 0.3
SHIFT_DEVIATION = 0.3


class Stage(NamedTuple):
    """A depthwise layer and a pointwise one, with squeeze-and-excitation between them or not."""

    kernel_size: int
    out_channels: int
    stride: int
    excite: bool = False


STAGES = (
    Stage(3, 32, 1),
    Stage(3, 64, 2),
    Stage(3, 64, 1),
    Stage(3, 128, 2),
    Stage(5, 256, 2, excite=True),
    Stage(5, 256, 1, excite=True),
)


class ScalarAffine(nn.Module):
    """scale * x + shift, two learned numbers: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(1 + SCALE_DEVIATION * torch.randn(1))
        self.shift = nn.Parameter(SHIFT_DEVIATION * torch.randn(1))

    def forward(self, x: Tensor) -> Tensor:
        """The scale comes first."""
        return self.scale * x + self.shift


class Shift(nn.Module):
    """x + shift, one number: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, shift: Tensor):
        super().__init__()
        self.shift = nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        """Adds it everywhere."""
        return x + self.shift


class LearnableSum(Block):
    """after(sum of branches(before(x))): (N, C_in, H, W) -> (N, C_out, H / stride, W / stride).

    `before` is what the authors write behind the previous activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        *,
        activated: bool,
    ):
        """Builds the training form.

        Args:
            in_channels: C_in.
            out_channels: C_out.
            kernel_size: size of the larger kernels along both axes, odd.
            stride: stride along both axes.
            groups: groups of all convolutions.
            activated: whether an activation stands directly in front, so that there is a `before`.
        """
        super().__init__()
        self.before = ScalarAffine() if activated else nn.Identity()
        self.sum = ParallelBranches(
            mobileone_branches(
                in_channels, out_channels, kernel_size, stride, groups, CONV_BRANCHES
            )
        )
        self.after = ScalarAffine()

    def forward(self, x: Tensor) -> Tensor:
        """The sum between its two scalings."""
        return self.after(self.sum(self.before(x)))

    @torch.no_grad()
    def to_conv(self) -> nn.Module:
        """The equal convolution with bias; if it is padded, behind a Shift where there is one."""
        conv = self.sum.to_conv()
        conv.weight.mul_(self.after.scale)
        conv.bias.mul_(self.after.scale).add_(self.after.shift)
        if isinstance(self.before, nn.Identity):
            return conv
        scale, shift = self.before.scale, self.before.shift
        if any(conv.padding):
            conv.weight.mul_(scale)
            return nn.Sequential(Shift(shift / scale), conv)
        conv.bias.add_(shift * conv.weight.sum((1, 2, 3)))
        conv.weight.mul_(scale)
        return conv


class HardSqueezeExcite(nn.Module):
    """A factor in [0, 1] on each channel, from the means of all: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.factor = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // SQUEEZE, 1),
            nn.ReLU(),
            nn.Conv2d(channels // SQUEEZE, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x * factor (N, C, 1, 1)."""
        return x * self.factor(x)


def lcnet_block(in_channels: int, stage: Stage, activated: bool) -> nn.Sequential:
    """The layers of one Stage: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride).

    `activated` tells whether the layer in front ends in an activation.
    """
    kernel_size, out_channels, stride, excite = stage
    layers = OrderedDict[str, nn.Module](
        depthwise=LearnableSum(
            in_channels, in_channels, kernel_size, stride, in_channels, activated=activated
        )
    )
    if stride == 1:
        layers["depthwise_act"] = nn.Hardswish()
    if excite:
        layers["excite"] = HardSqueezeExcite(in_channels)
    layers["pointwise"] = LearnableSum(
        in_channels, out_channels, 1, activated=stride == 1 and not excite
    )
    layers["pointwise_act"] = nn.Hardswish()
    return nn.Sequential(layers)


def lcnet_rep() -> Classifier:
    """Six blocks and 100 classes: (N, 3, H, W) -> (N, 100), the last map (N, 256, H / 16, W / 16).

    The stem has no activation.
    """
    layers: list[nn.Module] = [ConvNorm(3, STEM_CHANNELS, (3, 3), stride=2)]
    channels = STEM_CHANNELS
    for number, stage in enumerate(STAGES):
        layers.append(lcnet_block(channels, stage, activated=number > 0))
        channels = stage.out_channels
    return Classifier(layers, channels, num_classes=100)
