"""Multi-branch networks in PyTorch, in training form, and their authors' deploy forms.

`ZOO` names the networks, `build` makes one with reproducible weights and statistics, and
`reparameterize` gives its deploy form. Nothing here uses onnxfuse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from models.acnet import acnet_resnet18
from models.branches import reparameterize
from models.csp_detector import csp_detector
from models.diverse_branch import dbb_resnet18
from models.dsconv import dsconv_net
from models.edge_oriented import ecbsr_m4c16
from models.im2col import im2col_net
from models.lcnet import lcnet_rep
from models.mobileone import mobileone_s0, mobileone_s1
from models.qarepvgg import qarepvgg_a0
from models.rep_neck import rep_detector
from models.repvgg import repvgg_a0, repvgg_b1g4
from models.separable import separable_net
from models.statistics import randomize_statistics
from models.three_branch import three_branch
from models.unireplknet import unireplknet_a

__all__ = ["ZOO", "Network", "build", "randomize_statistics", "reparameterize"]

CALIBRATION_BATCH = 16
CALIBRATION_SIZE = 128


class Network(NamedTuple):
    """A network's factory, giving its training form, and the shape (1, C, H, W) of its input."""

    factory: Callable[[], nn.Module]
    input_shape: tuple[int, ...]


ZOO = {
    "repvgg_a0": Network(repvgg_a0, (1, 3, 224, 224)),
    "repvgg_b1g4": Network(repvgg_b1g4, (1, 3, 224, 224)),
    "qarepvgg_a0": Network(qarepvgg_a0, (1, 3, 224, 224)),
    "mobileone_s0": Network(mobileone_s0, (1, 3, 224, 224)),
    "mobileone_s1": Network(mobileone_s1, (1, 3, 224, 224)),
    "acnet_resnet18": Network(acnet_resnet18, (1, 3, 224, 224)),
    "dbb_resnet18": Network(dbb_resnet18, (1, 3, 224, 224)),
    "unireplknet_a": Network(unireplknet_a, (1, 3, 224, 224)),
    "ecbsr_m4c16": Network(ecbsr_m4c16, (1, 3, 270, 480)),
    "three_branch": Network(three_branch, (1, 3, 32, 32)),
    "separable_net": Network(separable_net, (1, 3, 32, 32)),
    "dsconv_net": Network(dsconv_net, (1, 3, 32, 32)),
    "im2col_net": Network(im2col_net, (1, 3, 32, 32)),
    "rep_detector": Network(rep_detector, (1, 3, 96, 96)),
    "csp_detector": Network(csp_detector, (1, 3, 96, 96)),
    "lcnet_rep": Network(lcnet_rep, (1, 3, 64, 64)),
}


def build(name: str, seed: int = 0) -> nn.Module:
    """The training form of a network of the zoo, in float32 and eval mode.

    Args:
        name: a key of `ZOO`.
        seed: seed of weights and BatchNorm statistics; PyTorch's global generator is left as it is.
    """
    network = ZOO[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = network.factory()
    _, channels, *size = network.input_shape
    noise_size = [min(extent, CALIBRATION_SIZE) for extent in size]
    randomize_statistics(module, (CALIBRATION_BATCH, channels, *noise_size), seed)
    return module
