"""ResNet-18 with blocks in the place of its 3x3 convolutions.

He, Zhang, Ren, Sun: "Deep Residual Learning for Image Recognition", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from models.branches import ConvNorm
from models.classifier import Classifier

STAGE_CHANNELS = (64, 128, 256, 512)
BLOCKS_PER_STAGE = 2

MakeBlock = Callable[[int, int, int], nn.Module]
"""From C_in, C_out and stride: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""


class ResidualBlock(nn.Module):
    """The basic block: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""

    def __init__(self, make_block: MakeBlock, in_channels: int, out_channels: int, stride: int):
        """The shortcut is a pointwise ConvNorm where the shape changes, else the identity."""
        super().__init__()
        self.residual = nn.Sequential(
            make_block(in_channels, out_channels, stride),
            nn.ReLU(),
            make_block(out_channels, out_channels, 1),
        )
        same_shape = stride == 1 and in_channels == out_channels
        self.shortcut = (
            nn.Identity() if same_shape else ConvNorm(in_channels, out_channels, (1, 1), stride)
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """relu(residual(x) + shortcut(x))."""
        return self.activation(self.residual(x) + self.shortcut(x))


class ResNet18(Classifier):
    """The ImageNet network: (N, 3, H, W) -> (N, num_classes).

    The 7x7 stem and the 1x1 shortcuts are plain ConvNorms; the last feature map is
    (N, 512, H / 32, W / 32).
    """

    def __init__(self, make_block: MakeBlock, num_classes: int = 1000):
        """Builds it with sixteen blocks from `make_block`, and `num_classes` logits."""
        channels = STAGE_CHANNELS[0]
        layers: list[nn.Module] = [
            ConvNorm(3, channels, (7, 7), stride=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        for stage, out_channels in enumerate(STAGE_CHANNELS):
            for position in range(BLOCKS_PER_STAGE):
                stride = 2 if stage > 0 and position == 0 else 1
                layers.append(ResidualBlock(make_block, channels, out_channels, stride))
                channels = out_channels
        super().__init__(layers, channels, num_classes)
