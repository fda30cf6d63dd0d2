"""Training of a small classifier, plainly or with R-Drop, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.rdrop import r_drop_loss, two_passes

BATCH_SIZE = 64
LEARNING_RATE = 0.005  # the largest; it rises to it from 0 and falls to 0 again
WARM_UP = 0.2  # share of the steps in which it rises
WEIGHT_DECAY = 0.05


def train(
    factory: Callable[[], nn.Module],
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    alpha: float | None,
    seed: int,
    on_epoch: Callable[[], None] = lambda: None,
) -> nn.Module:
    """A network trained by AdamW, in eval mode.

    Initial weights, batches and the number of steps depend on `seed` and `epochs` alone, not on
    `alpha`. Images that do not fill an epoch's last batch are left out of that epoch. PyTorch's
    global generator is left as it is.

    Args:
        factory: gives the network, (N, C, H, W) -> (N, num_classes).
        images: (N, C, H, W), at least a batch of them.
        labels: classes (N,), int64.
        epochs: number of passes over the images, at least 1.
        alpha: weight of R-Drop's divergence; None for the cross entropy of a single pass. R-Drop's
            loss is about twice as large, which the steps of AdamW do not depend on.
        seed: seed of the initial weights, of the order of the images and of dropout.
        on_epoch: called after each epoch.
    """
    order = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = factory().train()
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, epochs * (len(images) // BATCH_SIZE), pct_start=WARM_UP
        )
        for _ in range(epochs):
            for batch in torch.randperm(len(images), generator=order).split(BATCH_SIZE):
                if len(batch) == BATCH_SIZE:
                    optimizer.zero_grad()
                    _loss(network, images[batch], labels[batch], alpha).backward()
                    optimizer.step()
                    schedule.step()
            on_epoch()
    return network.eval()


def _loss(network: nn.Module, images: Tensor, labels: Tensor, alpha: float | None) -> Tensor:
    if alpha is None:
        return functional.cross_entropy(network(images), labels)
    return r_drop_loss(*two_passes(network, images), labels, alpha)


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of the images (N, C, H, W) whose largest logit is that of the label."""
    return (network(images).argmax(dim=1) == labels).double().mean().item()
