"""Linear operators whose windows are not interpreted, such as ConvTranspose.

y = sum over taps t of W[t] S_t(x) + b, where S_t moves pixels in a way that is the same for every
channel. So the channel matrices W[t] can take in whatever happens pixel by pixel around them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from onnxfuse.affine import taps
from onnxfuse.affine.conv import AffineConv
from onnxfuse.affine.deferred import Array, Deferred
from onnxfuse.affine.refusal import Refusal

AttributeValue = int | str | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FixedWindow:
    """An operator with channel-mixing taps that keeps its own attributes.

    Attributes:
        op_type: ONNX operator: ConvTranspose, Conv (padding that depends on the size), or Gemm
            (a transposed input).
        out_channels: Channels of y.
        in_channels: Channels of x.
        kernel: Taps per spatial axis.
        groups: As in ONNX Conv.
        weight_of: W, of shape (C_out, C_in / groups, *kernel), whatever the operator's own layout.
        bias_of: b, of shape (C_out,); None: zero.
        attributes: The operator's other attributes, kept as they are.
        sees_border: True when some outputs are sums over fewer taps than others, so that a shift
            of x does not become a shift of y.
    """

    op_type: str
    out_channels: int
    in_channels: int
    kernel: tuple[int, ...]
    groups: int
    weight_of: Deferred
    bias_of: Deferred | None = None
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    sees_border: bool = True

    @property
    def weight(self) -> Array:
        """W, of shape (C_out, C_in / groups, *kernel)."""
        return self.weight_of()

    @property
    def bias(self) -> Array:
        """b, of shape (C_out,)."""
        return np.zeros(self.out_channels) if self.bias_of is None else self.bias_of()


def after_window(g: AffineConv | FixedWindow, f: FixedWindow) -> FixedWindow | Refusal:
    """g after f, for a pointwise g: W'[t] = G W[t], b' = G b + g."""
    if isinstance(g, FixedWindow) or not g.is_pointwise:
        return Refusal(f"only a pointwise map folds into the {f.op_type} in front of it")
    ones = (1,) * len(f.kernel)

    def weight() -> Array:
        outer = g.weight.reshape(*g.weight.shape[:2], *ones)
        return taps.chain(outer, g.groups, ones, f.weight, f.groups, ones, f.kernel)

    def bias() -> Array:
        return taps.apply_to_constant(g.weight, g.groups, f.bias) + g.bias

    return replace(
        f,
        out_channels=g.out_channels,
        groups=math.gcd(f.groups, g.groups),
        weight_of=Deferred(weight),
        bias_of=g.bias_of if f.bias_of is None else Deferred(bias),
    )


def before_window(g: FixedWindow, f: AffineConv) -> FixedWindow | Refusal:
    """g after f, for a pointwise f without bias: W'[t] = W[t] F."""
    if not f.is_pointwise:
        return Refusal(f"only a pointwise map folds into the {g.op_type} behind it")
    shifts = f.bias_of is not None and bool(np.any(f.bias))
    if shifts and g.sees_border:
        return Refusal(f"a shift in front of {g.op_type} is not a shift of its output")
    ones = (1,) * len(g.kernel)

    def weight() -> Array:
        inner = f.weight.reshape(*f.weight.shape[:2], *ones)
        return taps.chain(g.weight, g.groups, ones, inner, f.groups, ones, g.kernel)

    def bias() -> Array:
        return taps.apply_to_constant(g.weight, g.groups, f.bias) + g.bias

    return replace(
        g,
        in_channels=f.in_channels,
        groups=math.gcd(f.groups, g.groups),
        weight_of=Deferred(weight),
        bias_of=Deferred(bias) if shifts else g.bias_of,
    )


def total_of_windows(terms: Sequence[AffineConv | FixedWindow]) -> FixedWindow | Refusal:
    """The sum of operators that differ in weight and bias alone."""
    windows = [f for f in terms if isinstance(f, FixedWindow)]
    first = windows[0]
    if len(windows) < len(terms):
        return Refusal("a branch whose window is not interpreted, and one of another kind")
    for f in windows[1:]:
        if (f.op_type, f.kernel, f.attributes) != (first.op_type, first.kernel, first.attributes):
            return Refusal(f"{first.op_type} branches with different windows")
        if (f.out_channels, f.in_channels) != (first.out_channels, first.in_channels):
            return Refusal(f"{first.op_type} branches with different channels")
    groups = math.gcd(*(f.groups for f in windows))

    def weight() -> Array:
        parts = [taps.coarsen(f.weight, f.groups, groups) for f in windows]
        return np.asarray(np.sum(parts, axis=0))

    biased = any(f.bias_of is not None for f in windows)
    return replace(
        first,
        groups=groups,
        weight_of=Deferred(weight),
        bias_of=Deferred(lambda: np.sum([f.bias for f in windows], axis=0)) if biased else None,
    )
