"""MobileOne.

Vasu, Gabriel, Zhu, Tuzel, Ranjan: "MobileOne: An Improved One millisecond Mobile Backbone",
CVPR 2023 (arXiv:2206.04040, 2022).

A block in training is relu of a sum: a scale branch BN(conv1x1(x)) where the main kernel is larger
than 1x1, a skip BN(x) where the shape stays the same, and k branches BN(conv(x)); in deployment it
is relu(conv(x)). Depthwise 3x3 and pointwise blocks alternate. No squeeze-and-excitation in S0 and
S1. (N, 3, H, W) -> (N, 1000), the last feature map (N, C, H / 32, W / 32).
"""

from __future__ import annotations

from torch import nn

from models.branches import ConvNorm, activated
from models.classifier import Classifier

BLOCKS = (2, 8, 10, 1)
STAGE_CHANNELS = (64, 128, 256, 512)
STEM_CHANNELS = 64


def mobileone_branches(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    conv_branches: int = 1,
) -> list[nn.Module]:
    """The branches that a MobileOne block sums, (N, C_in, H, W) -> (N, C_out, H / s, W / s) each.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: size of the main kernel along both axes, odd.
        stride: stride s along both axes.
        groups: groups of all convolutions; C_in makes the block depthwise.
        conv_branches: the paper's k, the number of equal conv-BN branches.
    """
    branches: list[nn.Module] = []
    if kernel_size > 1:
        branches.append(ConvNorm(in_channels, out_channels, (1, 1), stride, groups))
    if stride == 1 and in_channels == out_channels:
        branches.append(nn.BatchNorm2d(out_channels))
    kernel = (kernel_size, kernel_size)
    branches += [
        ConvNorm(in_channels, out_channels, kernel, stride, groups) for _ in range(conv_branches)
    ]
    return branches


def mobileone_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    conv_branches: int = 1,
) -> nn.Sequential:
    """One MobileOne block, with its ReLU; arguments and shapes as of `mobileone_branches`."""
    return activated(
        mobileone_branches(in_channels, out_channels, kernel_size, stride, groups, conv_branches)
    )


class MobileOne(Classifier):
    """The ImageNet network: (N, 3, H, W) -> (N, num_classes)."""

    def __init__(self, width: tuple[float, ...], conv_branches: int, num_classes: int = 1000):
        """Builds the training form.

        Args:
            width: factor on (64, 128, 256, 512), the channels of the four stages after the stem.
            conv_branches: the paper's k in all blocks but the stem, where it is 1.
            num_classes: number of logits.
        """
        channels = min(STEM_CHANNELS, int(STEM_CHANNELS * width[0]))
        layers = [mobileone_block(3, channels, 3, stride=2)]
        for depth, base, factor in zip(BLOCKS, STAGE_CHANNELS, width, strict=True):
            for position in range(depth):
                stride = 2 if position == 0 else 1
                out_channels = int(base * factor)
                layers += [
                    mobileone_block(channels, channels, 3, stride, channels, conv_branches),
                    mobileone_block(channels, out_channels, 1, conv_branches=conv_branches),
                ]
                channels = out_channels
        super().__init__(layers, channels, num_classes)


def mobileone_s0() -> MobileOne:
    """MobileOne-S0: 43 blocks, four conv-BN branches each."""
    return MobileOne((0.75, 1.0, 1.0, 2.0), conv_branches=4)


def mobileone_s1() -> MobileOne:
    """MobileOne-S1: 43 blocks, one conv-BN branch each."""
    return MobileOne((1.5, 1.5, 2.0, 2.5), conv_branches=1)
