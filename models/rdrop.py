"""R-Drop.

Liang, Wu, Li, Wang, Meng, Qin, Chen, Zhang, Liu: "R-Drop: Regularized Dropout for Neural Networks",
NeurIPS 2021 (arXiv:2106.14448).

Each batch goes through the network twice, with dropout of its own in each pass, and the two
predictions p1 and p2 are drawn towards each other besides towards the label y:
loss = -log p1[y] - log p2[y] + alpha / 2 (KL(p1 || p2) + KL(p2 || p1)).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def r_drop_loss(logits1: Tensor, logits2: Tensor, labels: Tensor, alpha: float) -> Tensor:
    """The loss of two passes over one batch, with gradients through both.

    As in the paper the two cross entropies are added; the authors' published example halves their
    sum, which is this loss with twice the alpha, halved.

    Args:
        logits1: logits (N, num_classes) of the first pass.
        logits2: logits (N, num_classes) of the second pass.
        labels: classes (N,), int64.
        alpha: weight of the divergence, at least 0; the paper's experiments use 0.1 to 5.

    Returns:
        The mean over the batch, a scalar.
    """
    log_p1, log_p2 = logits1.log_softmax(dim=1), logits2.log_softmax(dim=1)
    cross_entropies = functional.nll_loss(log_p1, labels) + functional.nll_loss(log_p2, labels)
    # KL(p1 || p2) + KL(p2 || p1) = sum (p1 - p2) (log p1 - log p2), no term of it negative
    divergences = ((log_p1.exp() - log_p2.exp()) * (log_p1 - log_p2)).sum(dim=1)
    return cross_entropies + alpha / 2 * divergences.mean()


def two_passes(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of two passes over `inputs`, (N, *S) -> twice (N, num_classes).

    Both go through as one batch of 2N, as in the authors' code: dropout draws for each copy on its
    own. A BatchNorm normalizes both copies by the statistics of all 2N and moves its running
    statistics once, as it does in a step with one pass.
    """
    logits1, logits2 = network(torch.cat((inputs, inputs))).chunk(2)
    return logits1, logits2
