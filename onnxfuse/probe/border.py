"""Bias and padding values of a convolution, from what it makes of zero.

rest[o, q] = b[o] + the sum of W[t, c, o] * v[c] over channels c and the taps t that q reads outside
"""

from __future__ import annotations

import numpy as np

from onnxfuse.affine import Array, Refusal
from onnxfuse.probe.frame import Frame

_EQUAL = 1e-12
_MOST_EQUATIONS = 1 << 22


def bias_and_outside(frame: Frame, taps: Array, rest: Array) -> tuple[Array, Array] | Refusal:
    """The bias (C',) and the value (C,) of the input outside its domain.

    Args:
        frame: Where the taps are.
        taps: (taps, C, C').
        rest: The output for an input of zeros, (C', *S').
    """
    channels, out_channels = taps.shape[1:]
    outputs, patterns = frame.border_patterns()
    calm = int(np.argmin(patterns.sum(axis=0)))
    rest = rest.reshape(out_channels, -1)
    bias = rest[:, outputs[calm]]
    largest = np.abs(rest).max(axis=1, initial=0.0)
    if np.all(np.abs(rest - bias[:, None]) <= _EQUAL * largest[:, None]):
        return bias, np.zeros(channels)
    if np.all(np.count_nonzero(np.any(taps, axis=0), axis=0) <= 1):
        return _channel_by_channel(taps, patterns, rest[:, outputs])
    if patterns[:, calm].any():
        return Refusal("every output reads beyond its border, and not zeros")
    unknown = [i for i in range(patterns.shape[1]) if i != calm]
    if not unknown:
        return Refusal("what it adds depends on the position, as a table of positions does")
    if len(unknown) * out_channels * channels > _MOST_EQUATIONS:
        return Refusal("it pads with other values than zero inside a product over many channels")
    rows = np.concatenate([taps[patterns[:, i]].sum(axis=0).T for i in unknown])
    wanted = np.concatenate([rest[:, outputs[i]] - bias for i in unknown])
    return bias, np.linalg.lstsq(rows, wanted)[0]


def _channel_by_channel(taps: Array, patterns: Array, rest: Array) -> tuple[Array, Array]:
    """Where each output reads one channel: two outputs that miss different taps are enough.

    Args:
        taps: (taps, C, C').
        patterns: Which taps are missed, (taps, P).
        rest: The output for zeros, one for each pattern, (C', P).
    """
    channels, out_channels = taps.shape[1:]
    outputs = np.arange(out_channels)
    channel = np.argmax(np.any(taps, axis=0), axis=0)
    missed = taps[:, channel, outputs].T @ patterns.astype(np.float64)  # (C', P)
    low, high = np.argmin(np.abs(missed), axis=1), np.argmax(np.abs(missed), axis=1)
    step = missed[outputs, high] - missed[outputs, low]
    rise = rest[outputs, high] - rest[outputs, low]
    value = np.divide(rise, step, out=np.zeros(out_channels), where=step != 0)
    outside = np.zeros(channels)
    outside[channel[step != 0]] = value[step != 0]
    bias = rest[outputs, low] - missed[outputs, low] * outside[channel]
    return bias, outside
