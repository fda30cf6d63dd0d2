"""UniRepLKNet.

Ding, Zhang, Ge, Zhao, Song, Yue, Shan: "UniRepLKNet: A Universal Perception Large-Kernel ConvNet
for Audio, Video, Point Cloud, Time-Series and Image Recognition", CVPR 2024 (arXiv:2311.15599).

Around a depthwise convolution, a large one re-parameterized with dilations, stand
squeeze-and-excitation (Hu et al., CVPR 2018) and a channel MLP with global response normalization
(Woo et al., "ConvNeXt V2", CVPR 2023): with y = excite(BN(depthwise(x))), a block is

    x + scale * BN(linear(grn(gelu(linear(y)))))

where channels are last from the first linear layer to the second. In deployment the first BatchNorm
is in the depthwise convolution, and the shift of the response normalization, the second BatchNorm
and the scale are in the second linear layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.branches import Block, Normed, fold_norm
from models.dilated import DilatedReparamBlock

SMALLEST_DILATED = 7  # a block with a smaller kernel has one plain depthwise convolution

DEPTHS_A = (2, 2, 6, 2)
CHANNELS_A = (40, 80, 160, 320)
KERNELS_A = (3, 13, 13, 13)

SQUEEZE = 4
EXPANSION = 4
EPSILON = 1e-6
# The authors begin with gains of 1 or 0, shifts of 0 and a layer scale of 1e-6. A trained network's
# are none of these, and mistakes in them must show.
GAIN_DEVIATION = 0.3
SHIFT_DEVIATION = 0.3
SCALE_DEVIATION = 0.5


def drawn(channels: int, mean: float, deviation: float) -> nn.Parameter:
    """A parameter (channels,) of normal values."""
    return nn.Parameter(mean + deviation * torch.randn(channels))


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = drawn(channels, 1, GAIN_DEVIATION)
        self.bias = drawn(channels, 0, SHIFT_DEVIATION)

    def forward(self, x: Tensor) -> Tensor:
        """weight * (x - mean) / sqrt(var + eps) + bias."""
        centred = x - x.mean(1, keepdim=True)
        variance = centred.pow(2).mean(1, keepdim=True)
        normal = centred / torch.sqrt(variance + EPSILON)
        return self.weight[:, None, None] * normal + self.bias[:, None, None]


class SqueezeExcite(nn.Module):
    """A factor in (0, 1) on each channel, from the means of all: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.factor = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // SQUEEZE, 1),
            nn.ReLU(),
            nn.Conv2d(channels // SQUEEZE, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x * factor (N, C, 1, 1)."""
        return x * self.factor(x)


class ResponseNorm(nn.Module):
    """Global response normalization but for its shift: (N, H, W, C) -> (N, H, W, C)."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = drawn(channels, 0, GAIN_DEVIATION)

    def forward(self, x: Tensor) -> Tensor:
        """(gain * response + 1) * x, the response a channel's norm over the mean of all norms."""
        norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        response = norm / (norm.mean(-1, keepdim=True) + EPSILON)
        return (self.gain * response + 1) * x


class Projection(Block):
    """scale * BN(linear(x + shift)): (N, H, W, C_in), channels last, -> (N, C_out, H, W).

    `shift` (C_in,) is that of the response normalization.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.shift = drawn(in_channels, 0, SHIFT_DEVIATION)
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.channels_first = ChannelsFirst()
        self.norm = nn.BatchNorm2d(out_channels)
        self.scale = drawn(out_channels, 0, SCALE_DEVIATION)

    def forward(self, x: Tensor) -> Tensor:
        """The linear layer sees channels last, BatchNorm sees them first."""
        y = self.norm(self.channels_first(self.linear(x + self.shift)))
        return self.scale[:, None, None] * y

    @torch.no_grad()
    def to_conv(self) -> nn.Module:
        """The equal linear layer with bias, a convolution of channels last; then channels first."""
        weight, bias = fold_norm(self.linear.weight, self.linear.weight @ self.shift, self.norm)
        linear = nn.Linear(self.linear.in_features, self.linear.out_features).to(weight)
        linear.weight.copy_(self.scale[:, None] * weight)
        linear.bias.copy_(self.scale * bias)
        return nn.Sequential(linear, self.channels_first)


class ChannelsFirst(nn.Module):
    """(N, H, W, C) -> (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Permutes."""
        return x.permute(0, 3, 1, 2)


class UniRepLKNetBlock(nn.Module):
    """The whole residual block: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, size: int):
        """`size` is the depthwise kernel's along both axes: 3, 5, or a key of DILATED_KERNELS."""
        super().__init__()
        wide = EXPANSION * channels
        depthwise = (
            DilatedReparamBlock(channels, size)
            if size >= SMALLEST_DILATED
            else nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, bias=False)
        )
        self.depthwise = Normed(depthwise, nn.BatchNorm2d(channels))
        self.excite = SqueezeExcite(channels)
        self.expand = nn.Sequential(nn.Linear(channels, wide), nn.GELU(), ResponseNorm(wide))
        self.project = Projection(wide, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x + the residual."""
        y = self.excite(self.depthwise(x)).permute(0, 2, 3, 1)
        return x + self.project(self.expand(y))


class UniRepLKNet(nn.Module):
    """The ImageNet network: (N, 3, H, W) -> (N, num_classes).

    The stem divides H and W by 4, each of the three stages after the first by 2.
    """

    def __init__(
        self,
        depths: tuple[int, ...],
        channels: tuple[int, ...],
        kernels: tuple[int, ...],
        num_classes: int = 1000,
    ):
        """Builds the training form.

        Args:
            depths: number of blocks in each stage.
            channels: channels of each stage; the first is even.
            kernels: size of the depthwise kernels in each stage.
            num_classes: number of logits.
        """
        super().__init__()
        first, last = channels[0], channels[-1]
        layers: list[nn.Module] = [down(3, first // 2), nn.GELU()]
        inner = first // 2
        for depth, width, size in zip(depths, channels, kernels, strict=True):
            layers.append(down(inner, width))
            layers += [UniRepLKNetBlock(width, size) for _ in range(depth)]
            inner = width
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(last, EPSILON)
        self.head = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Blocks, global average, LayerNorm, linear head."""
        return self.head(self.norm(self.blocks(x).mean((2, 3))))


def down(in_channels: int, out_channels: int) -> nn.Sequential:
    """conv3x3 and LayerNorm: (N, C_in, H, W) -> (N, C_out, H / 2, W / 2)."""
    conv = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
    return nn.Sequential(conv, ChannelNorm(out_channels))


def unireplknet_a() -> UniRepLKNet:
    """UniRepLKNet-A: 12 blocks, 4.4 million parameters."""
    return UniRepLKNet(DEPTHS_A, CHANNELS_A, KERNELS_A)
