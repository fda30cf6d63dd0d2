"""RepVGG.

Ding, Zhang, Ma, Han, Ding, Sun: "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021.

A block in training is relu(BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x)), the last branch only where the
shape stays the same; in deployment it is relu(conv3x3(x)). The network is a plain stack of such
blocks, then global average pooling and a linear classifier: (N, 3, H, W) -> (N, 1000), the last
feature map (N, C, H / 32, W / 32).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from models.branches import NORMS, ConvNorm, activated
from models.classifier import Classifier

BLOCKS_A = (2, 4, 14, 1)
BLOCKS_B = (4, 6, 16, 1)
STAGE_CHANNELS = (64, 128, 256, 512)
STEM_CHANNELS = 64


MakeBlock = Callable[[int, int, int, int], nn.Module]
"""From C_in, C_out, stride and groups: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""


def repvgg_branches(
    in_channels: int, out_channels: int, stride: int = 1, groups: int = 1, rank: int = 2
) -> list[nn.Module]:
    """The branches that a RepVGG block sums: (N, C_in, *S) -> (N, C_out, *(S / stride)).

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: stride of both convolutions, the same along every axis.
        groups: groups of both convolutions; divides C_in and C_out.
        rank: number of spatial axes, 1 to 3.
    """
    branches: list[nn.Module] = [
        ConvNorm(in_channels, out_channels, (size,) * rank, stride, groups) for size in (3, 1)
    ]
    if stride == 1 and in_channels == out_channels:
        branches.append(NORMS[rank](out_channels))
    return branches


def repvgg_block(
    in_channels: int, out_channels: int, stride: int = 1, groups: int = 1, rank: int = 2
) -> nn.Sequential:
    """One RepVGG block, with its ReLU; arguments and shapes as of `repvgg_branches`."""
    return activated(repvgg_branches(in_channels, out_channels, stride, groups, rank))


class RepVGG(Classifier):
    """The ImageNet network: (N, 3, H, W) -> (N, num_classes)."""

    def __init__(
        self,
        blocks: tuple[int, ...],
        width: tuple[float, ...],
        groups_at: Callable[[int], int] = lambda _: 1,
        num_classes: int = 1000,
        make_block: MakeBlock = repvgg_block,
    ):
        """Builds the training form.

        Args:
            blocks: number of blocks in each of the four stages after the stem; the first of a stage
                has stride 2.
            width: factor on (64, 128, 256, 512), the stages' channels.
            groups_at: groups of the block with a given index, counted from 0, the stem.
            num_classes: number of logits.
            make_block: gives each block, with its activation.
        """
        channels = min(STEM_CHANNELS, int(STEM_CHANNELS * width[0]))
        layers = [make_block(3, channels, 2, groups_at(0))]
        for depth, base, factor in zip(blocks, STAGE_CHANNELS, width, strict=True):
            for position in range(depth):
                stride = 2 if position == 0 else 1
                out_channels = int(base * factor)
                layers.append(make_block(channels, out_channels, stride, groups_at(len(layers))))
                channels = out_channels
        super().__init__(layers, channels, num_classes)


def repvgg_a0() -> RepVGG:
    """RepVGG-A0: 22 blocks, 9.1 million parameters in training form."""
    return RepVGG(BLOCKS_A, (0.75, 0.75, 0.75, 2.5))


def repvgg_b1g4() -> RepVGG:
    """RepVGG-B1g4: 28 blocks, every second one with 4 groups."""
    return RepVGG(
        BLOCKS_B, (2, 2, 2, 4), groups_at=lambda index: 4 if index > 0 and index % 2 == 0 else 1
    )
