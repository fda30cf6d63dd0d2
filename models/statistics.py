"""BatchNorm statistics as a trained network could have them.

A freshly built BatchNorm has mean 0, variance 1, gain 1 and shift 0: nearly the identity, and a
fold that forgets one of the four would pass unnoticed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.branches import NORM_TYPES

MEAN_JITTER = 0.3  # in standard deviations of the channel
VARIANCE_FACTOR = (0.5, 2.0)
GAIN = (0.5, 1.5)
NEGATIVE_GAINS = 0.1  # share of the channels
SHIFT_MEAN = 0.5  # in deviations of the outcome; see randomize_statistics
SHIFT_DEVIATION = 0.3
VARIANCE_FLOOR = 0.05  # in mean variances of the layer; a channel may be dead


@torch.no_grad()
def randomize_statistics(module: nn.Module, shape: tuple[int, ...], seed: int = 0) -> None:
    """Gives every BatchNorm of `module` random, plausible statistics, in place.

    One batch of noise goes through the module in eval mode. Each BatchNorm, as it is reached, takes
    the mean and variance of the input that it sees, jittered, and a random gain and shift. What
    follows sees the outcome, so activations neither vanish nor explode, however deep the network.
    Shifts are positive in the mean, so that most of a ReLU's inputs pass: with shifts around zero a
    deep random network is chaotic, and multiplies every rounding error by a hundred and more. The
    result depends on the module's weights, `shape` and `seed` alone. The module ends in eval mode.

    Args:
        module: a network or block that takes one tensor.
        shape: shape (N, C, *S) of the batch of noise. The smallest feature map should hold some
            hundreds of values per channel: statistics of 32 fit that batch alone, and on other
            images the activations of a deep network then grow a hundredfold.
        seed: seed of the noise and of the statistics.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype = next(module.parameters()).dtype

    def randomize(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        _randomize_norm(norm, inputs[0], generator)

    norms = [norm for norm in module.modules() if isinstance(norm, NORM_TYPES)]
    hooks = [norm.register_forward_pre_hook(randomize) for norm in norms]
    try:
        module.eval()(torch.randn(shape, generator=generator).to(dtype))
    finally:
        for hook in hooks:
            hook.remove()


def _randomize_norm(norm: nn.Module, x: Tensor, generator: torch.Generator) -> None:
    """Sets mean, variance, gain and shift, each (C,), for an input x of shape (N, C, *S)."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(norm.num_features, generator=generator)

    def normal(deviation: float) -> Tensor:
        return deviation * torch.randn(norm.num_features, generator=generator)

    axes = [axis for axis in range(x.ndim) if axis != 1]
    variance = x.var(axes, correction=0)
    variance = variance.clamp(min=(VARIANCE_FLOOR * variance.mean()).item())
    sign = torch.where(uniform(0, 1) < NEGATIVE_GAINS, -1.0, 1.0)
    norm.running_mean.copy_(x.mean(axes) + variance.sqrt() * normal(MEAN_JITTER))
    norm.running_var.copy_(variance * uniform(*VARIANCE_FACTOR))
    norm.weight.copy_(sign * uniform(*GAIN))
    norm.bias.copy_(SHIFT_MEAN + normal(SHIFT_DEVIATION))
