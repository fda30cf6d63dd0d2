"""Depthwise-separable convolutions with branches, groups and a channel shuffle.

Howard et al.: "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
arXiv:1704.04861, 2017: a depthwise 3x3 and a pointwise convolution, each with BatchNorm and ReLU.
Ding, Guo, Ding, Han: "ACNet", ICCV 2019: the depthwise kernel's branches. Zhang, Zhou, Lin, Sun:
"ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices", CVPR 2018: the
pointwise convolution's groups, and the shuffle behind it.

The combination is ours. The depthwise part in training is relu(BN(conv3x3(x)) + BN(conv1x3(x)) +
BN(conv3x1(x)) + BN(x)), the last branch only without stride; in deployment relu(conv3x3(x)).
"""

from __future__ import annotations

from torch import Tensor, nn

from models.acnet import asymmetric_block
from models.branches import ConvNorm, activated
from models.classifier import Classifier

STEM_CHANNELS = 16
STAGE_CHANNELS = (32, 64, 96)
GROUPS = 4


class ChannelShuffle(nn.Module):
    """Channel (g, i) of G groups to place (i, g): (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, groups: int):
        """`groups` is G, a divisor of C."""
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """(G, C / G) -> (C / G, G)."""
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


def separable_block(
    in_channels: int, out_channels: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Depthwise, then pointwise part: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride).

    Args:
        in_channels: C_in.
        out_channels: C_out.
        stride: stride of the depthwise part, along both axes.
        groups: groups of the pointwise part; above 1 the channels are shuffled after it.
    """
    branches = list(asymmetric_block(in_channels, in_channels, stride, in_channels).branches)
    if stride == 1:
        branches.append(nn.BatchNorm2d(in_channels))
    layers = [
        activated(branches),
        ConvNorm(in_channels, out_channels, (1, 1), groups=groups),
        nn.ReLU(),
    ]
    if groups > 1:
        layers.append(ChannelShuffle(groups))
    return nn.Sequential(*layers)


def separable_net() -> Classifier:
    """Six blocks for colour images of 32x32 pixels and ten classes, half of them with groups."""
    layers: list[nn.Module] = [ConvNorm(3, STEM_CHANNELS, (3, 3)), nn.ReLU()]
    channels = STEM_CHANNELS
    for stage, out_channels in enumerate(STAGE_CHANNELS):
        layers += [
            separable_block(channels, out_channels, stride=1 if stage == 0 else 2),
            separable_block(out_channels, out_channels, groups=GROUPS),
        ]
        channels = out_channels
    return Classifier(layers, channels, num_classes=10)
