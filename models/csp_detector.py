"""A small detector of cross-stage partial blocks, in the manner of YOLOv8.

Jocher, Chaurasia, Qiu: "Ultralytics YOLOv8", github.com/ultralytics/ultralytics, 2023. Its blocks
(C2f there) are cross-stage partial ones (Wang et al.: "CSPNet: A New Backbone that can Enhance
Learning Capability of CNN", CVPR Workshops 2020): one pointwise layer's channels are halved, one
half runs through bottlenecks, and all partial results are concatenated. Behind the backbone three
equal poolings in turn see four sizes of surroundings (SPPF there, after He et al.: "Spatial Pyramid
Pooling in Deep Convolutional Networks", ECCV 2014); the neck is a path aggregation network (Liu et
al., CVPR 2018). Boxes are predicted as the distances from a place to the four sides, each as the
mean of a distribution over 16 bins (Li et al.: "Generalized Focal Loss", NeurIPS 2020).

Layers are silu(BN(conv(x))). Those of the bottlenecks are YOLOv7's RepConv (Wang, Bochkovskiy,
Liao, CVPR 2023), as YOLOv9 has them in such blocks (Wang, Yeh, Liao, ECCV 2024): in training
silu(BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x)), in deployment silu(conv3x3(x)). Sizes are ours,
small, with predictions at strides 8 and 16 alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.rep_neck import conv_silu, rep_conv

CHANNELS = (16, 32, 64, 128)  # at strides 2, 4, 8 and 16
SIDES = 4
BINS = 16
HEAD_CHANNELS = 64
POOLING_SIZE = 5
POOLINGS = 3


class Bottleneck(nn.Module):
    """x + rep_conv(rep_conv(x)), or without the skip: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, skip: bool):
        super().__init__()
        self.layers = nn.Sequential(rep_conv(channels, channels), rep_conv(channels, channels))
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """The skip comes behind the last activation."""
        return x + self.layers(x) if self.skip else self.layers(x)


class PartialBlock(nn.Module):
    """A cross-stage partial block: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, depth: int = 1, skip: bool = True):
        """Builds the training form.

        Args:
            in_channels: C_in.
            out_channels: C_out, even; the bottlenecks have half of them.
            depth: number of bottlenecks.
            skip: whether these have skips, as in the backbone.
        """
        super().__init__()
        half = out_channels // 2
        self.enter = conv_silu(in_channels, out_channels, 1)
        self.bottlenecks = nn.ModuleList(Bottleneck(half, skip) for _ in range(depth))
        self.leave = conv_silu((2 + depth) * half, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Both halves and what each bottleneck makes of the one before it, concatenated."""
        parts = list(self.enter(x).chunk(2, dim=1))
        for bottleneck in self.bottlenecks:
            parts.append(bottleneck(parts[-1]))
        return self.leave(torch.cat(parts, dim=1))


class PyramidPooling(nn.Module):
    """Maxima over 1x1, 5x5, 9x9 and 13x13 pixels, mixed: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        self.enter = conv_silu(channels, channels // 2, 1)
        self.pool = nn.MaxPool2d(POOLING_SIZE, stride=1, padding=POOLING_SIZE // 2)
        self.leave = conv_silu((1 + POOLINGS) * (channels // 2), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Each pooling reads the one before it."""
        maxima = [self.enter(x)]
        for _ in range(POOLINGS):
            maxima.append(self.pool(maxima[-1]))
        return self.leave(torch.cat(maxima, dim=1))


class MeanDistance(nn.Module):
    """The mean of each side's distribution: logits (N, 4 * 16, P) -> (N, 4, P), in 0 to 15.

    A pointwise convolution with the fixed weights 0 to 15 computes it, bins being its channels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.copy_(torch.arange(BINS).reshape(1, BINS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Softmax over the bins, then their mean."""
        batch, _, places = x.shape
        shares = x.view(batch, SIDES, BINS, places).transpose(2, 1).softmax(1)
        return self.conv(shares).view(batch, SIDES, places)


class Head(nn.Module):
    """Predictions at one scale: (N, C, H, W) -> (N, 4 * 16 + classes, H, W), all of them logits."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.box = _tower(channels, SIDES * BINS)
        self.category = _tower(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Boxes, then classes."""
        return torch.cat([self.box(x), self.category(x)], dim=1)


def _tower(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two layers and a pointwise convolution: (N, C_in, H, W) -> (N, C_out, H, W)."""
    return nn.Sequential(
        conv_silu(in_channels, HEAD_CHANNELS, 3),
        conv_silu(HEAD_CHANNELS, HEAD_CHANNELS, 3),
        nn.Conv2d(HEAD_CHANNELS, out_channels, 1),
    )


class CspDetector(nn.Module):
    """(N, 3, H, W) -> distances (N, 4, P) and logits of the classes (N, num_classes, P).

    H and W are multiples of 16; the places are the P = H / 8 * W / 8 + H / 16 * W / 16 pixels of
    both scales, the fine one's first. Distances are in strides of their scale, without anchors.
    """

    def __init__(self, channels: tuple[int, int, int, int], num_classes: int):
        """Builds the training form.

        Args:
            channels: of the backbone at strides 2, 4, 8 and 16.
            num_classes: number of classes.
        """
        super().__init__()
        first, second, fine, coarse = channels
        self.num_classes = num_classes
        self.to_fine = nn.Sequential(
            conv_silu(3, first, 3, stride=2),
            conv_silu(first, second, 3, stride=2),
            PartialBlock(second, second),
            conv_silu(second, fine, 3, stride=2),
            PartialBlock(fine, fine, depth=2),
        )
        self.to_coarse = nn.Sequential(
            conv_silu(fine, coarse, 3, stride=2),
            PartialBlock(coarse, coarse),
            PyramidPooling(coarse),
        )
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge_up = PartialBlock(coarse + fine, fine, skip=False)
        self.downsample = conv_silu(fine, fine, 3, stride=2)
        self.merge_down = PartialBlock(fine + coarse, coarse, skip=False)
        self.heads = nn.ModuleList(Head(width, num_classes) for width in (fine, coarse))
        self.mean_distance = MeanDistance()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Backbone, up, down, a head at either scale, and both scales' places in one row."""
        fine = self.to_fine(x)
        coarse = self.to_coarse(fine)
        fine = self.merge_up(torch.cat([self.upsample(coarse), fine], dim=1))
        coarse = self.merge_down(torch.cat([self.downsample(fine), coarse], dim=1))
        maps = (head(scale) for head, scale in zip(self.heads, (fine, coarse), strict=True))
        rows = torch.cat([scale.flatten(2) for scale in maps], dim=2)
        box, category = rows.split((SIDES * BINS, self.num_classes), dim=1)
        return self.mean_distance(box), category


def csp_detector() -> CspDetector:
    """The detector of COCO's 80 classes, 0.9 million parameters."""
    return CspDetector(CHANNELS, num_classes=80)
