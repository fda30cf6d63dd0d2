"""Handwritten digits of 8x8 pixels, and a small classifier of each family for them.

Alpaydin, Kaynak: "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998. scikit-learn ships 1797 images of it, those of the thirteen writers of the original's test
set.

Each classifier is a stack of blocks in three stages, (N, 1, 8, 8) -> (N, 10), whose feature maps
have 8x8, 4x4 and 2x2 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.acnet import asymmetric_block
from models.classifier import Classifier
from models.diverse_branch import DiverseBranchBlock
from models.mobileone import mobileone_block
from models.repvgg import repvgg_block
from models.three_branch import ThreeBranchNet

NUM_CLASSES = 10
IMAGE_SHAPE = (1, 8, 8)
LARGEST_VALUE = 16  # of a pixel, as the data come
TEST_EVERY = 4
STAGE_CHANNELS = (16, 32, 64)
MOBILEONE_CHANNELS = (32, 64, 96)
MOBILEONE_BRANCHES = 2

MakeBlock = Callable[[int, int, int], nn.Module]
"""From C_in, C_out and stride: (N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""


class Digits(NamedTuple):
    """Images (N, 1, 8, 8), float32 in [0, 1], and their labels (N,), int64 in 0..9."""

    images: Tensor
    labels: Tensor


def load_digits() -> tuple[Digits, Digits]:
    """The training split and the test split, 1352 and 445 images, the same at every call.

    Of the images of each class, in the order of the data, every fourth is in the test split. So
    both hold the classes in equal shares, and digits of all thirteen writers: accuracy on the test
    split is that on new digits by known writers.

    Raises:
        ModuleNotFoundError: scikit-learn, which ships the data, is not installed.
    """
    try:
        from sklearn import datasets
    except ModuleNotFoundError as error:
        message = 'the digits come with scikit-learn: pip install "scikit-learn>=1.3"'
        raise ModuleNotFoundError(message, name=error.name) from error

    pixels, labels = datasets.load_digits(return_X_y=True)
    images = (pixels / LARGEST_VALUE).astype(np.float32).reshape(-1, *IMAGE_SHAPE)
    in_test = np.zeros(len(labels), dtype=bool)
    for label in range(NUM_CLASSES):
        in_test[np.flatnonzero(labels == label)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    train, test = (
        Digits(torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen].astype(np.int64)))
        for chosen in (~in_test, in_test)
    )
    return train, test


def repvgg(dropout: float = 0.0) -> Classifier:
    """Six RepVGG blocks."""
    return _staged(repvgg_block, repvgg_block, dropout)


def mobileone(dropout: float = 0.0) -> Classifier:
    """A MobileOne block, then five times a depthwise and a pointwise one, k = 2."""
    return _staged(_mobileone_stem, _mobileone_pair, dropout, MOBILEONE_CHANNELS)


def dbb(dropout: float = 0.0) -> Classifier:
    """Six Diverse Branch Blocks."""
    return _staged(_diverse_block, _diverse_block, dropout)


def acnet(dropout: float = 0.0) -> Classifier:
    """Six asymmetric convolution blocks."""
    return _staged(_asymmetric_block, _asymmetric_block, dropout)


def three_branch(dropout: float = 0.0) -> Classifier:
    """The small three-branch classifier, for images of one channel."""
    return ThreeBranchNet(in_channels=1, num_classes=NUM_CLASSES, dropout=dropout)


class Network(NamedTuple):
    """A classifier, and how it becomes an ONNX model with all its branches.

    Attributes:
        factory: gives the training form; takes the dropout before the head.
        exporter: "script" keeps each BatchNorm as a node, but freezes the batch where a rim is
            assigned in place.
    """

    factory: Callable[[float], Classifier]
    exporter: Literal["dynamo", "script"] = "script"


DIGITS = {
    "repvgg": Network(repvgg),
    "mobileone": Network(mobileone),
    "dbb": Network(dbb, exporter="dynamo"),
    "acnet": Network(acnet),
    "three_branch": Network(three_branch),
}


def _staged(
    stem: MakeBlock,
    make_block: MakeBlock,
    dropout: float,
    stage_channels: tuple[int, ...] = STAGE_CHANNELS,
) -> Classifier:
    """Two blocks per stage, the very first one made by `stem`; each next stage halves the image."""
    layers: list[nn.Module] = []
    channels = IMAGE_SHAPE[0]
    for stage, out_channels in enumerate(stage_channels):
        first = stem if stage == 0 else make_block
        layers += [
            first(channels, out_channels, 1 if stage == 0 else 2),
            make_block(out_channels, out_channels, 1),
        ]
        channels = out_channels
    return Classifier(layers, channels, NUM_CLASSES, dropout)


def _mobileone_stem(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return mobileone_block(in_channels, out_channels, 3, stride)


def _mobileone_pair(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        mobileone_block(in_channels, in_channels, 3, stride, in_channels, MOBILEONE_BRANCHES),
        mobileone_block(in_channels, out_channels, 1, conv_branches=MOBILEONE_BRANCHES),
    )


def _diverse_block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(DiverseBranchBlock(in_channels, out_channels, stride), nn.ReLU())


def _asymmetric_block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(asymmetric_block(in_channels, out_channels, stride), nn.ReLU())
