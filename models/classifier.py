"""What the image classifiers here share: a stack of blocks, then pooling and a linear head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn


class Classifier(nn.Sequential):
    """Blocks, global average pooling, linear head: (N, C_in, H, W) -> (N, num_classes)."""

    def __init__(self, blocks: Iterable[nn.Module], channels: int, num_classes: int):
        """`blocks` run in turn; the last of them gives `channels` channels."""
        super().__init__(
            OrderedDict(
                blocks=nn.Sequential(*blocks),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                head=nn.Linear(channels, num_classes),
            )
        )
