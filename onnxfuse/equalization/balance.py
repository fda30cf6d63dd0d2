"""Scales of channels by what quantization is expected to cost: numpy alone.

A tensor x of activations has one step, its whole range over the number of steps; a weight W has one
for each output channel. A rounding is off by step^2 / 12 in the mean square. With channel c scaled
by s_c, the output y = W x of a layer is off by

    sum_c (range(s x) / 255)^2 / 12 * |W_c|^2 / s_c^2  +  sum_o (max_c |W_oc| / s_c / 127)^2 / 12
        * sum_c s_c^2 |x_c|^2

in the mean square, in proportion to |y|^2. Small channels want to be large, so that activations
have more of the steps, and so do channels with large columns, for the weights' sake; the scales
with the smallest sum over all layers are between. Cross-layer equalization (Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019) takes the ratio
of two weights' ranges instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxfuse.affine import Array

ACTIVATION_STEPS = 255
LASTING = 10.0
"""A weight's rounding is the same at every pixel of every image, and does not average out as those
of activations do. On the networks in models/ 10 gave less noise than 1, 3 or 30."""
_ROUNDS, _FEWEST = 150, 30
_TERMS = 1 << 16  # terms of the cost, over all rounds: about ten seconds
_RATE, _DECAY, _SQUARES, _TINY = 0.1, 0.9, 0.99, 1e-12
_DOUBLINGS = 4  # the 16-norm stands for a maximum, so that more than one channel moves
_FARTHEST = 7.0  # of a logarithm from 0


@dataclass(frozen=True)
class Activation:
    """A tensor that is quantized, with one step.

    Attributes:
        groups: The group of each channel, (C,).
        low: How far each channel goes below zero, (C,).
        high: How far above, (C,).
        importance: What a mean square error of 1 in each channel costs, (C,).
    """

    groups: NDArray[np.int64]
    low: Array
    high: Array
    importance: Array


@dataclass(frozen=True)
class Weight:
    """A weight that is quantized, with a step for each output channel.

    Attributes:
        groups: The group of each channel that comes in, (C_in,).
        peaks: The largest magnitude between two channels, (g, C_out / g, C_in / g).
        power: What a mean square error of 1 in the weights of each channel that comes in adds to
            that of an output, (C_in,).
        importance: What a mean square error of 1 in each output channel costs, (C_out,).
    """

    groups: NDArray[np.int64]
    peaks: Array
    power: Array
    importance: Array


def balanced(
    count: int, activations: Sequence[Activation], weights: Sequence[Weight], *, weight_steps: int
) -> Array:
    """A scale for each group of channels, (count,); that of group 0 is 1.

    Args:
        count: Number of groups.
        activations: The tensors between layers.
        weights: The layers' weights.
        weight_steps: The largest integer of a quantized weight: 127, or 63.
    """
    logs, best = np.zeros(count), np.zeros(count)
    mean, square = np.zeros(count), np.zeros(count)
    least = np.inf
    rounds = min(_ROUNDS, max(_FEWEST, _TERMS // max(1, len(activations) + len(weights))))
    for number in range(1, rounds + 1):
        cost, slope = 0.0, np.zeros(count)
        for tensor in activations:
            cost += _rounding(tensor, logs, slope)
        for weight in weights:
            cost += _weighing(weight, logs, slope, weight_steps)
        if cost < least:
            least, best = cost, logs
        if not cost > 0:
            break
        slope[0] = 0.0
        slope /= cost
        mean = _DECAY * mean + (1 - _DECAY) * slope
        square = _SQUARES * square + (1 - _SQUARES) * slope**2
        direction = mean / (1 - _DECAY**number)
        size = np.sqrt(square / (1 - _SQUARES**number)) + _TINY
        rate = _RATE * (1 - number / rounds)
        logs = np.clip(logs - rate * direction / size, -_FARTHEST, _FARTHEST)
    return np.exp(best)


def _rounding(tensor: Activation, logs: Array, slope: Array) -> float:
    """The cost of a tensor's step, and how it changes with the scales."""
    scales = np.exp(logs[tensor.groups])
    (high, above), (low, below) = (_largest(scales * side) for side in (tensor.high, tensor.low))
    shared = tensor.importance / scales**2
    spread = float((high + low)[0])
    unit = 1 / (12.0 * ACTIVATION_STEPS**2)
    total = float(np.sum(shared))
    change = 2 * unit * (spread * (high * above + low * below) * total - spread**2 * shared)
    np.add.at(slope, tensor.groups, change)
    return float(unit * spread**2 * total)


def _weighing(weight: Weight, logs: Array, slope: Array, steps: int) -> float:
    """The cost of a weight's steps, and how it changes with the scales."""
    parts = len(weight.peaks)
    scales = np.exp(logs[weight.groups]).reshape(parts, -1)
    power = weight.power.reshape(parts, -1) * scales**2
    total = np.sum(power, axis=1)
    rows, shares = _largest(weight.peaks / scales[:, None, :])
    unit = LASTING / (12.0 * steps**2)
    squares = unit * weight.importance.reshape(parts, -1) * rows[:, :, 0] ** 2
    each = np.sum(squares, axis=1)
    pull = np.einsum("go,goi->gi", squares, shares)
    change = 2 * (each[:, None] * power - total[:, None] * pull)
    np.add.at(slope, weight.groups, change.reshape(-1))
    return float(np.sum(each * total))


def _largest(values: Array) -> tuple[Array, Array]:
    """The maximum over the last axis, smoothed, and by how much it grows with each logarithm."""
    peak = np.max(values, axis=-1, keepdims=True, initial=0.0)
    relative = np.divide(values, peak, out=np.zeros_like(values), where=peak > 0)
    powers = relative
    for _ in range(_DOUBLINGS):
        powers = powers * powers
    total = np.sum(powers, axis=-1, keepdims=True)
    shares = np.divide(powers, total, out=np.zeros_like(values), where=total > 0)
    return peak * total ** (1 / 2**_DOUBLINGS), shares
