"""ACNet on ResNet-18.

Ding, Guo, Ding, Han: "ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric
Convolution Blocks", ICCV 2019.

An asymmetric convolution block takes the place of each 3x3 convolution with its BatchNorm. In
training it is BN(conv3x3(x)) + BN(conv1x3(x)) + BN(conv3x1(x)), in deployment conv3x3(x).
"""

from __future__ import annotations

from models.branches import ConvNorm, ParallelBranches
from models.resnet import ResNet18


def asymmetric_block(
    in_channels: int, out_channels: int, stride: int = 1, groups: int = 1
) -> ParallelBranches:
    """One asymmetric convolution block: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
    return ParallelBranches(
        ConvNorm(in_channels, out_channels, kernel, stride, groups)
        for kernel in ((3, 3), (1, 3), (3, 1))
    )


def acnet_resnet18() -> ResNet18:
    """ResNet-18 with its sixteen 3x3 convolutions as asymmetric convolution blocks."""
    return ResNet18(asymmetric_block)
