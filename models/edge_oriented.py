"""ECBSR.

Zhang, Zeng, Zhang: "Edge-oriented Convolution Block for Real-time Super Resolution on Mobile
Devices", ACM Multimedia 2021.

A block in training is prelu of the sum conv3x3(x) + conv3x3(conv1x1(x)) + sobel_x(conv1x1(x)) +
sobel_y(conv1x1(x)) + laplacian(conv1x1(x)), the edge filters depthwise with a learned factor and
bias per channel; in deployment it is prelu(conv3x3(x)). Between two steps the padding is the
pointwise convolution's bias, its response to zero. The network is a plain stack of such blocks, the
last one without PReLU, to which the image is added before the pixels are shuffled:
(N, colors, H, W) -> (N, colors, scale * H, scale * W).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.branches import Block, ParallelBranches, reparameterize
from models.diverse_branch import identity_kernel, merge_steps, pad_with

SOBEL_X = ((1, 0, -1), (2, 0, -2), (1, 0, -1))
SOBEL_Y = ((1, 2, 1), (0, 0, 0), (-1, -2, -1))
LAPLACIAN = ((0, 1, 0), (1, -4, 1), (0, 1, 0))

DEPTH_MULTIPLIER = 2
# The authors draw factors and biases of the edge filters with deviation 0.001, and begin with equal
# slopes. A trained network's are neither that small nor equal, and mistakes in them must show.
EDGE_DEVIATION = 0.1
SLOPES = (0.05, 0.45)


class EdgeFilter(nn.Module):
    """A depthwise convolution with scale * mask, unpadded: (N, C, H, W) -> (N, C, H - 2, W - 2)."""

    def __init__(self, channels: int, mask: tuple[tuple[int, ...], ...]):
        """`mask` is fixed, a scale and a bias of each channel are learned."""
        super().__init__()
        self.scale = nn.Parameter(EDGE_DEVIATION * torch.randn(channels, 1, 1, 1))
        self.bias = nn.Parameter(EDGE_DEVIATION * torch.randn(channels))
        self.register_buffer("mask", torch.tensor(mask).float().repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The weight (C, 1, 3, 3) is computed here, in training form."""
        return functional.conv2d(x, self.scale * self.mask, self.bias, groups=len(self.bias))

    @property
    def weight(self) -> Tensor:
        """The weight (C, C, 3, 3) of the equal convolution with one group."""
        return identity_kernel(len(self.bias)).to(self.scale) * (self.scale * self.mask)


class BiasedSteps(Block):
    """second(conv1x1(x)), conv1x1(x) in a rim of its bias: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, in_channels: int, inner_channels: int, second: nn.Module):
        """`second` is a convolution or an edge filter, 3x3 and not padded."""
        super().__init__()
        self.first = nn.Conv2d(in_channels, inner_channels, 1)
        self.second = second

    def forward(self, x: Tensor) -> Tensor:
        """Runs both steps."""
        return self.second(pad_with(self.first(x), self.first.bias, width=1))

    def to_conv(self) -> nn.Conv2d:
        """The equal convolution with bias."""
        return merge_steps(*((step.weight, step.bias) for step in (self.first, self.second)))


class EdgeOrientedBlock(ParallelBranches):
    """The sum of the branches: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, skip: bool = False):
        """With `skip`, x is added too where C_in is C_out."""
        inner = DEPTH_MULTIPLIER * out_channels
        branches = [
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            BiasedSteps(in_channels, inner, nn.Conv2d(inner, out_channels, 3)),
        ]
        branches += [
            BiasedSteps(in_channels, out_channels, EdgeFilter(out_channels, mask))
            for mask in (SOBEL_X, SOBEL_Y, LAPLACIAN)
        ]
        if skip and in_channels == out_channels:
            branches.append(nn.Identity())
        super().__init__(branches)

    def to_conv(self) -> nn.Module:
        """The equal convolution with bias."""
        return ParallelBranches(map(reparameterize, self.branches)).to_conv()


def edge_block(in_channels: int, out_channels: int, skip: bool = False) -> nn.Sequential:
    """One edge-oriented block with its PReLU: (N, C_in, H, W) -> (N, C_out, H, W)."""
    prelu = nn.PReLU(out_channels)
    nn.init.uniform_(prelu.weight, *SLOPES)
    block = EdgeOrientedBlock(in_channels, out_channels, skip)
    return nn.Sequential(OrderedDict(sum=block, prelu=prelu))


class ECBSR(nn.Module):
    """The super-resolution network: (N, colors, H, W) -> (N, colors, scale * H, scale * W)."""

    def __init__(self, blocks: int, channels: int, scale: int, colors: int, skip: bool = False):
        """Builds the training form.

        Args:
            blocks: the paper's m, the number of blocks between the first and the last.
            channels: the paper's c, the channels of all feature maps but the last.
            scale: factor on height and width.
            colors: channels of the image, 1 in the paper, which upscales luminance alone.
            skip: whether blocks that keep the number of channels add their input.
        """
        super().__init__()
        widths = [colors, *[channels] * (blocks + 1)]
        self.backbone = nn.Sequential(
            *(edge_block(width, channels, skip) for width in widths[:-1]),
            EdgeOrientedBlock(channels, colors * scale**2, skip),
        )
        self.copies = scale**2
        self.upsampler = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Each color is added to the scale**2 channels that its pixels are shuffled from."""
        return self.upsampler(self.backbone(x) + x.repeat_interleave(self.copies, dim=1))


def ecbsr_m4c16() -> ECBSR:
    """ECBSR-M4C16 for twice the size, and for colour images."""
    return ECBSR(blocks=4, channels=16, scale=2, colors=3)
