"""QARepVGG.

Chu, Li, Zhang: "Make RepVGG Greater Again: A Quantization-aware Approach", AAAI 2024
(arXiv:2212.01593).

A block in training is relu(BN(BN(conv3x3(x)) + conv1x1(x) + x)), the last branch only where the
shape stays the same; in deployment it is relu(conv3x3(x)). Of RepVGG's three BatchNorms one is
left, and one stands behind the sum, so that weights and activations keep a range that quantizes
well. The network is RepVGG with these blocks.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from models.branches import CONVS, NORMS, ConvNorm, Normed, ParallelBranches
from models.repvgg import BLOCKS_A, RepVGG


def qarepvgg_block(
    in_channels: int, out_channels: int, stride: int = 1, groups: int = 1, rank: int = 2
) -> nn.Sequential:
    """One QARepVGG block with its ReLU: (N, C_in, *S) -> (N, C_out, *(S / stride)).

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: stride of both convolutions, the same along every axis.
        groups: groups of both convolutions; divides C_in and C_out.
        rank: number of spatial axes, 1 to 3.
    """
    branches: list[nn.Module] = [
        ConvNorm(in_channels, out_channels, (3,) * rank, stride, groups),
        CONVS[rank](in_channels, out_channels, 1, stride, groups=groups, bias=False),
    ]
    if stride == 1 and in_channels == out_channels:
        branches.append(nn.Identity())
    total = Normed(ParallelBranches(branches), NORMS[rank](out_channels))
    return nn.Sequential(OrderedDict(sum=total, relu=nn.ReLU()))


def qarepvgg_a0() -> RepVGG:
    """QARepVGG-A0: RepVGG-A0's 22 blocks and widths, 9.1 million parameters in training form."""
    return RepVGG(BLOCKS_A, (0.75, 0.75, 0.75, 2.5), make_block=qarepvgg_block)
