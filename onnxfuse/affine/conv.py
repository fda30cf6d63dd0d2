"""AffineConv: y = W * x + b with strides, dilations, pads and groups; its constructors.

Shapes and pads are known at once; weights and biases are computed when someone asks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxfuse.affine.deferred import Array, Deferred

Size = tuple[int, ...]
_DEEP = 64


@dataclass(frozen=True, eq=False)
class AffineConv:
    """A convolution with bias, in float64, of any spatial rank (0 for a plain matrix product).

    Attributes:
        out_channels: Channels of y.
        in_channels: Channels of x.
        kernel: Taps per spatial axis.
        strides: Per spatial axis.
        dilations: Per spatial axis.
        pads: All begins, then all ends, as in ONNX; negative values crop.
        groups: As in ONNX Conv.
        weight_of: W, of shape (C_out, C_in / groups, *kernel).
        bias_of: b, of shape (C_out,); None: zero.
        outside_of: What x is taken to be outside its domain, of shape (C_in,); None: zero.
        outside_within_of: How far another value may be from `outside` and still be the same, since
            somebody rounded it, of shape (C_in,); None: not at all.
        border_error_of: How far y may be off at the border, where such values were taken for the
            same, of shape (C_out,); None: zero.
        at_size: The spatial size of x that this is valid for; None: every size.
        is_identity: True when y = x by construction.
        is_selective: True when W comes from choosing or joining channels, so that it may have zero
            blocks or be the identity although the shapes do not tell.
        is_sum: True when it joins branches of x.
        is_movement: True when it only moves, drops and joins values of x.
        depth: How many recipes stand behind the weight.
    """

    out_channels: int
    in_channels: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int
    weight_of: Deferred
    bias_of: Deferred | None = None
    outside_of: Deferred | None = None
    outside_within_of: Deferred | None = None
    border_error_of: Deferred | None = None
    at_size: Size | None = None
    is_identity: bool = False
    is_selective: bool = False
    is_sum: bool = False
    is_movement: bool = False
    depth: int = 0

    @cached_property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def weight(self) -> Array:
        """W, of shape (C_out, C_in / groups, *kernel)."""
        return self.weight_of()

    @property
    def bias(self) -> Array:
        """b, of shape (C_out,)."""
        return np.zeros(self.out_channels) if self.bias_of is None else self.bias_of()

    @property
    def outside(self) -> Array:
        """The value of x outside its domain, of shape (C_in,)."""
        return np.zeros(self.in_channels) if self.outside_of is None else self.outside_of()

    @property
    def outside_within(self) -> Array:
        """How far another value may be from `outside` and still be the same, of shape (C_in,)."""
        known = self.outside_within_of
        return np.zeros(self.in_channels) if known is None else known()

    @property
    def border_error(self) -> Array:
        """How far y may be off at the border, of shape (C_out,)."""
        known = self.border_error_of
        return np.zeros(self.out_channels) if known is None else known()

    @cached_property
    def begins(self) -> tuple[int, ...]:
        """Padding in front, per spatial axis."""
        return self.pads[: self.rank]

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Padding behind, per spatial axis."""
        return self.pads[self.rank :]

    @cached_property
    def extents(self) -> tuple[int, ...]:
        """Input positions that the kernel spans per axis: (K - 1) * dilation + 1."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @cached_property
    def is_pointwise(self) -> bool:
        """One tap, stride 1, no padding: every output pixel reads its own input pixel."""
        return not any(self.pads) and set(self.kernel) <= {1} and set(self.strides) <= {1}

    @cached_property
    def is_channelwise(self) -> bool:
        """Pointwise, and every channel by itself: y[c] = scale[c] * x[c] + shift[c]."""
        return self.is_pointwise and self.groups == self.in_channels == self.out_channels

    @cached_property
    def reads_outside(self) -> bool:
        """True when some tap can reach beyond the domain of x."""
        return max(self.pads, default=0) > 0

    def output_size(self, size: Size) -> Size:
        """Spatial size of y for an input of spatial size `size`."""
        return tuple(
            (n + p + q - e) // s + 1
            for n, p, q, e, s in zip(
                size, self.begins, self.ends, self.extents, self.strides, strict=True
            )
        )

    def tightened(self, size: Size) -> AffineConv:
        """The same map at one input size, with the least padding behind; valid at that size."""
        ends = tuple(
            (m - 1) * s + e - n - p
            for n, m, p, e, s in zip(
                size,
                self.output_size(size),
                self.begins,
                self.extents,
                self.strides,
                strict=True,
            )
        )
        return replace(self, pads=(*self.begins, *ends), at_size=size, is_identity=False)


def affine_conv(
    weight: Array | Deferred,
    bias: Array | Deferred | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    strides: tuple[int, ...] | None = None,
    dilations: tuple[int, ...] | None = None,
    pads: tuple[int, ...] | None = None,
    groups: int = 1,
    at_size: Size | None = None,
) -> AffineConv:
    """An AffineConv from its weight.

    Args:
        weight: (C_out, C_in / groups, *kernel), an array or a Deferred.
        bias: (C_out,) or None.
        shape: Shape of `weight`; needed when it is a Deferred.
        strides: Per spatial axis; default 1.
        dilations: Per spatial axis; default 1.
        pads: Begins, then ends; default 0.
        groups: As in ONNX Conv.
        at_size: The only spatial size of x that the pads hold for, or None.

    Raises:
        ValueError: If channels and groups do not fit, or the tuples have the wrong length.
    """
    if shape is None:
        shape = Deferred.of(weight)().shape
    rank = len(shape) - 2
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    pads = pads or (0,) * (2 * rank)
    if not len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise ValueError(f"{strides=}, {dilations=}, {pads=} do not fit the weight's shape {shape}")
    if groups < 1 or shape[0] % groups:
        raise ValueError(f"{groups=} does not divide C_out={shape[0]}")
    return AffineConv(
        out_channels=shape[0],
        in_channels=shape[1] * groups,
        kernel=tuple(shape[2:]),
        strides=tuple(strides),
        dilations=tuple(d if k > 1 else 1 for d, k in zip(dilations, shape[2:], strict=True)),
        pads=tuple(pads),
        groups=groups,
        weight_of=Deferred.of(weight),
        bias_of=None if bias is None else Deferred.of(bias),
        at_size=at_size,
    )


def identity(channels: int, rank: int) -> AffineConv:
    """y = x over `rank` spatial axes."""
    ones = Deferred(lambda: np.ones((channels, 1, *(1,) * rank)))
    plain = affine_conv(ones, shape=(channels, 1, *(1,) * rank), groups=channels)
    return replace(plain, is_identity=True, is_movement=True)


def channel_affine(
    scale: Array | Deferred, shift: Array | Deferred | None, channels: int, rank: int
) -> AffineConv:
    """y[c] = scale[c] * x[c] + shift[c]; scale and shift have shape (channels,)."""
    scale_of = Deferred.of(scale)
    shape = (channels, 1, *(1,) * rank)
    return affine_conv(
        Deferred(lambda: scale_of().reshape(shape)), shift, shape=shape, groups=channels
    )


def average_pool(
    channels: int, kernel: tuple[int, ...], strides: Size, dilations: Size, pads: tuple[int, ...]
) -> AffineConv:
    """The mean over a window, zeros of the padding counted (count_include_pad=1)."""
    shape = (channels, 1, *kernel)
    return affine_conv(
        Deferred(lambda: np.full(shape, 1.0 / math.prod(kernel))),
        shape=shape,
        strides=strides,
        dilations=dilations,
        pads=pads,
        groups=channels,
    )


def window(channels: int, rank: int, pads: tuple[int, ...], strides: Size) -> AffineConv:
    """y = x padded (or cropped, where negative) and then sampled every `strides` positions."""
    return replace(
        identity(channels, rank),
        pads=pads,
        strides=strides,
        is_identity=not any(pads) and set(strides) <= {1},
    )


def settled(f: AffineConv) -> AffineConv:
    """The same map; when many recipes stand behind its weight, they are carried out now."""
    if f.depth < _DEEP:
        return f
    return replace(
        f,
        weight_of=Deferred.of(f.weight),
        bias_of=None if f.bias_of is None else Deferred.of(f.bias),
        border_error_of=None if f.border_error_of is None else Deferred.of(f.border_error),
        depth=0,
    )


def padded_with(f: AffineConv, value: Array) -> AffineConv:
    """The same map, with x taken to be `value` (C_in,) outside its domain."""
    return replace(f, outside_of=Deferred.of(value) if np.any(value) else None)


def rounded_outside(f: AffineConv, within: Array) -> AffineConv:
    """The same map; values `within` (C_in,) of its outside value are the same but for rounding."""
    return replace(f, outside_within_of=Deferred.of(within) if np.any(within) else None)
