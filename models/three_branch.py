"""The three-branch residual block, plain and in a small classifier.

The plain block is conv3x3(x) + conv1x1(x) + x; with a BatchNorm on every branch it is the block of
Ding, Zhang, Ma, Han, Ding, Sun: "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021. Each is
one 3x3 convolution in deployment.
"""

from __future__ import annotations

from torch import nn

from models.branches import CONVS, ParallelBranches
from models.classifier import Classifier
from models.repvgg import repvgg_block

NETWORK_CHANNELS = (16, 32, 48)


def three_branch_block(channels: int, groups: int = 1, rank: int = 2) -> ParallelBranches:
    """conv3x3(x) + conv1x1(x) + x, both with bias and padding="same": (N, C, *S) -> (N, C, *S).

    Args:
        channels: C.
        groups: groups of both convolutions; divides C.
        rank: number of spatial axes, 1 to 3.
    """
    convs = [
        CONVS[rank](channels, channels, kernel_size=size, padding="same", groups=groups)
        for size in (3, 1)
    ]
    return ParallelBranches([*convs, nn.Identity()])


class ThreeBranchNet(Classifier):
    """A classifier of six blocks, each relu of conv3x3-BN + conv1x1-BN + BN(x).

    (N, in_channels, H, W) -> (N, num_classes), the last feature map (N, 48, H / 4, W / 4). The
    first block of each of the three stages changes the shape, and so has no BN(x) branch.
    """

    def __init__(self, in_channels: int = 3, num_classes: int = 10, dropout: float = 0.0):
        """Builds the training form.

        Args:
            in_channels: 1 for digits, 3 for small colour images.
            num_classes: number of logits.
            dropout: share of the features before the head that training sets to zero.
        """
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, out_channels in enumerate(NETWORK_CHANNELS):
            layers += [
                repvgg_block(channels, out_channels, stride=1 if stage == 0 else 2),
                repvgg_block(out_channels, out_channels),
            ]
            channels = out_channels
        super().__init__(layers, channels, num_classes, dropout)


def three_branch() -> ThreeBranchNet:
    """The small classifier for colour images of 32x32 pixels and ten classes."""
    return ThreeBranchNet()
