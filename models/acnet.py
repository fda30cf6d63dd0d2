"""ACNet on ResNet-18.

Ding, Guo, Ding, Han: "ACNet: Strengthening the Kernel Skeletons for Powerful CNN via Asymmetric
Convolution Blocks", ICCV 2019; the backbone from He, Zhang, Ren, Sun: "Deep Residual Learning for
Image Recognition", CVPR 2016.

An asymmetric convolution block takes the place of each 3x3 convolution with its BatchNorm. In
training it is BN(conv3x3(x)) + BN(conv1x3(x)) + BN(conv3x1(x)), in deployment conv3x3(x). The 7x7
stem and the 1x1 shortcuts stay as they are. (N, 3, H, W) -> (N, 1000), the last feature map
(N, 512, H / 32, W / 32).
"""

from __future__ import annotations

from torch import Tensor, nn

from models.branches import ConvNorm, ParallelBranches
from models.classifier import Classifier

STAGE_CHANNELS = (64, 128, 256, 512)
BLOCKS_PER_STAGE = 2


def asymmetric_block(
    in_channels: int, out_channels: int, stride: int = 1, groups: int = 1
) -> ParallelBranches:
    """One asymmetric convolution block: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
    return ParallelBranches(
        ConvNorm(in_channels, out_channels, kernel, stride, groups)
        for kernel in ((3, 3), (1, 3), (3, 1))
    )


class ResidualBlock(nn.Module):
    """ResNet's basic block: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        """The shortcut is a pointwise ConvNorm where the shape changes, else the identity."""
        super().__init__()
        self.residual = nn.Sequential(
            asymmetric_block(in_channels, out_channels, stride),
            nn.ReLU(),
            asymmetric_block(out_channels, out_channels),
        )
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity() if same_shape else ConvNorm(in_channels, out_channels, (1, 1), stride)
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """relu(residual(x) + shortcut(x))."""
        return self.activation(self.residual(x) + self.shortcut(x))


class ACNetResNet18(Classifier):
    """The ImageNet network: (N, 3, H, W) -> (N, num_classes)."""

    def __init__(self, num_classes: int = 1000):
        """Builds the training form with `num_classes` logits."""
        channels = STAGE_CHANNELS[0]
        layers: list[nn.Module] = [
            ConvNorm(3, channels, (7, 7), stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        for stage, out_channels in enumerate(STAGE_CHANNELS):
            for position in range(BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and position == 0 else 1
                layers.append(ResidualBlock(channels, out_channels, stride))
                channels = out_channels
        super().__init__(layers, channels, num_classes)


def acnet_resnet18() -> ACNetResNet18:
    """ResNet-18 with its sixteen 3x3 convolutions as asymmetric convolution blocks."""
    return ACNetResNet18()
