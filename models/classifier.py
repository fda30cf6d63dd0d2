"""What the image classifiers here share: a stack of blocks, then pooling and a linear head."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from torch import nn


class Classifier(nn.Sequential):
    """Blocks, global average pooling, linear head: (N, C_in, H, W) -> (N, num_classes)."""

    def __init__(
        self, blocks: Iterable[nn.Module], channels: int, num_classes: int, dropout: float = 0.0
    ):
        """Builds the training form.

        Args:
            blocks: run in turn; the last of them gives `channels` channels.
            channels: number of features that the head reads.
            num_classes: number of logits.
            dropout: share of the head's features that training sets to zero; with 0 there is no
                module for it.
        """
        layers = OrderedDict[str, nn.Module](
            blocks=nn.Sequential(*blocks), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()
        )
        if dropout > 0:
            layers["dropout"] = nn.Dropout(dropout)
        layers["head"] = nn.Linear(channels, num_classes)
        super().__init__(layers)
