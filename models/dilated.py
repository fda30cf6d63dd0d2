"""Dilated re-parameterization.

Ding, Zhang, Ge, Zhao, Song, Yue, Shan: "UniRepLKNet: A Universal Perception Large-Kernel ConvNet
for Audio, Video, Point Cloud, Time-Series and Image Recognition", CVPR 2024 (arXiv:2311.15599).

A block in training is the sum of BN(conv(x)) over depthwise convolutions, a large one and small
ones with dilations; in deployment it is the large one, into whose centre the small kernels are
added with zeros between their taps.
"""

from __future__ import annotations

import torch
from torch import nn

from models.branches import ConvNorm, ParallelBranches

# From the size of the large kernel: size and dilation of each small one.
DILATED_KERNELS = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}


class DilatedReparamBlock(ParallelBranches):
    """The sum of depthwise convolutions with BatchNorm: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, size: int):
        """`size` is the large kernel's along both axes, a key of DILATED_KERNELS."""
        super().__init__(
            ConvNorm(channels, channels, (taps, taps), groups=channels, dilation=dilation)
            for taps, dilation in ((size, 1), *DILATED_KERNELS[size])
        )

    def to_conv(self) -> nn.Module:
        """The equal convolution with bias and without dilation."""
        return ParallelBranches(spread(branch.to_conv()) for branch in self.branches).to_conv()


@torch.no_grad()
def spread(conv: nn.Conv2d) -> nn.Conv2d:
    """The equal convolution without dilation: zeros between the taps of a square kernel."""
    dilation, size = conv.dilation[0], conv.kernel_size[0]
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        dilation * (size - 1) + 1,
        padding=conv.padding,
        groups=conv.groups,
    ).to(conv.weight)
    plain.weight.zero_()[:, :, ::dilation, ::dilation] = conv.weight
    plain.bias.copy_(conv.bias)
    return plain
