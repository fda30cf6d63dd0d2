"""A small detector of re-parameterizable blocks, in the manner of the YOLO family.

Li et al.: "YOLOv6: A Single-Stage Object Detection Framework for Industrial Applications",
arXiv:2209.02976, 2022: RepVGG blocks in backbone and neck. Wang, Bochkovskiy, Liao: "YOLOv7:
Trainable bag-of-freebies sets new state-of-the-art for real-time object detectors", CVPR 2023:
RepConv, which is silu(BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x)), the last branch only where the
shape stays the same, and in deployment silu(conv3x3(x)).

The neck is a path aggregation network (Liu et al., CVPR 2018): coarse features go up to the fine
ones and back down. Sizes are ours, small.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from models.branches import ConvNorm, ParallelBranches
from models.repvgg import repvgg_block, repvgg_branches

BACKBONE_CHANNELS = (16, 32, 64, 128)  # at strides 2, 4, 8 and 16
ANCHORS = 3
BOX_AND_OBJECTNESS = 5


def rep_conv(
    in_channels: int, out_channels: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """One RepConv with its SiLU: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
    total = ParallelBranches(repvgg_branches(in_channels, out_channels, stride, groups))
    return nn.Sequential(OrderedDict(sum=total, silu=nn.SiLU()))


def conv_silu(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Sequential:
    """silu(BN(conv(x))): (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
    return nn.Sequential(ConvNorm(in_channels, out_channels, (size, size), stride), nn.SiLU())


class RepDetector(nn.Module):
    """(N, 3, H, W) -> (N, A (5 + classes), H / 8, W / 8) and (N, A (5 + classes), H / 16, W / 16).

    H and W are multiples of 16. The outputs are raw: for each of A anchors a box, an objectness and
    the classes' logits.
    """

    def __init__(self, channels: tuple[int, int, int, int], num_classes: int, groups: int = 1):
        """Builds the training form.

        Args:
            channels: of the backbone at strides 2, 4, 8 and 16.
            num_classes: number of classes.
            groups: groups of the RepConvs that keep the number of channels.
        """
        super().__init__()
        first, second, fine, coarse = channels
        self.to_fine = nn.Sequential(
            repvgg_block(3, first, stride=2),
            repvgg_block(first, second, stride=2),
            repvgg_block(second, second),
            repvgg_block(second, fine, stride=2),
            repvgg_block(fine, fine),
        )
        self.to_coarse = nn.Sequential(
            repvgg_block(fine, coarse, stride=2), repvgg_block(coarse, coarse)
        )
        self.reduce = conv_silu(coarse, fine, 1)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.merge_up = nn.Sequential(rep_conv(2 * fine, fine), rep_conv(fine, fine, groups=groups))
        self.downsample = conv_silu(fine, fine, 3, stride=2)
        self.merge_down = nn.Sequential(
            rep_conv(2 * fine, coarse), rep_conv(coarse, coarse, groups=groups)
        )
        predictions = ANCHORS * (BOX_AND_OBJECTNESS + num_classes)
        self.fine_head = nn.Conv2d(fine, predictions, 1)
        self.coarse_head = nn.Conv2d(coarse, predictions, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Backbone, up, down, and a head at either scale."""
        fine = self.to_fine(x)
        reduced = self.reduce(self.to_coarse(fine))
        fine = self.merge_up(torch.cat([self.upsample(reduced), fine], dim=1))
        coarse = self.merge_down(torch.cat([self.downsample(fine), reduced], dim=1))
        return self.fine_head(fine), self.coarse_head(coarse)


def rep_detector() -> RepDetector:
    """The detector of ten classes; every second RepConv of the neck has four groups."""
    return RepDetector(BACKBONE_CHANNELS, num_classes=10, groups=4)
