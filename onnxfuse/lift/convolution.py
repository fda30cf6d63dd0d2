"""Conv and ConvTranspose (ONNX, every opset)."""

from __future__ import annotations

import numpy as np

from onnxfuse.affine import (
    Array,
    AttributeValue,
    Deferred,
    FixedWindow,
    Refusal,
    Size,
    Term,
    affine_conv,
    compose,
)
from onnxfuse.lift.site import Site, Step

_PADDINGS = frozenset({"", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"})


def conv(site: Site) -> Step | Refusal:
    """Conv(x, W, B) -> W * x + B; a padding that depends on an unknown size is not interpreted."""
    shape = weights(site)
    if isinstance(shape, Refusal):
        return shape
    bias = site.float64(site.input(2)) if site.input(2) else None
    weight, groups = site.float64(site.input(1)), site.integer("group", 1)
    kernel = shape[2:]
    padding = resolve_pads(site, kernel)
    if padding is None:
        kept: dict[str, AttributeValue] = {
            "auto_pad": site.text("auto_pad", "NOTSET"),
            "kernel_shape": kernel,
        }
        kept |= {n: v for n in ("strides", "dilations") if (v := site.integer_list(n)) is not None}
        term: Term = FixedWindow(
            op_type="Conv",
            out_channels=shape[0],
            in_channels=shape[1] * groups,
            kernel=kernel,
            groups=groups,
            weight_of=weight,
            bias_of=bias,
            attributes=kept,
        )
    else:
        pads, at_size = padding
        term = affine_conv(
            weight,
            bias,
            shape=shape,
            strides=site.integer_list("strides"),
            dilations=site.integer_list("dilations"),
            pads=pads,
            groups=groups,
            at_size=at_size,
        )
    return unary(site.input(0), term)


def conv_transpose(site: Site) -> Step | Refusal:
    """ConvTranspose(x, W, B), whose channels are mixed and whose window is not interpreted."""
    shape = weights(site)
    if isinstance(shape, Refusal):
        return shape
    groups = site.integer("group", 1)
    names = ("strides", "dilations", "pads", "output_padding", "output_shape", "kernel_shape")
    kept: dict[str, AttributeValue] = {
        n: v for n in names if (v := site.integer_list(n)) is not None
    }
    if mode := site.text("auto_pad", ""):
        kept["auto_pad"] = mode
    stored = site.float64(site.input(1))
    term = FixedWindow(
        op_type="ConvTranspose",
        out_channels=shape[1] * groups,
        in_channels=shape[0],
        kernel=shape[2:],
        groups=groups,
        weight_of=Deferred(lambda: swap_channels(stored(), groups)),
        bias_of=site.float64(site.input(2)) if site.input(2) else None,
        attributes=kept,
    )
    return unary(site.input(0), term)


def swap_channels(weight: Array, groups: int) -> Array:
    """(C_in, C_out / groups, *kernel) <-> (C_out, C_in / groups, *kernel); its own inverse."""
    first, second = weight.shape[:2]
    blocks = weight.reshape(groups, first // groups, second, *weight.shape[2:])
    return np.ascontiguousarray(blocks.swapaxes(1, 2)).reshape(
        second * groups, first // groups, *weight.shape[2:]
    )


def unary(name: str, term: Term) -> Step:
    """A step that puts one map behind its only input."""
    return Step((name,), lambda maps, size: compose(term, maps[0], size))


def weights(site: Site) -> tuple[int, ...] | Refusal:
    """The shape of a constant weight that fits bias, groups and attributes, or why not."""
    shape = site.shape_of(site.input(1))
    if shape is None:
        return Refusal("its weight is not constant")
    if site.input(2) and not site.graph.is_constant(site.input(2)):
        return Refusal("its bias is not constant")
    groups = site.integer("group", 1)
    if len(shape) < 3 or 0 in shape or groups < 1 or shape[0] % groups:
        return Refusal(f"its weight has shape {list(shape)}, and it has {groups} groups")
    outputs = shape[1] * groups if site.node.op_type == "ConvTranspose" else shape[0]
    bias = site.shape_of(site.input(2)) if site.input(2) else (outputs,)
    if bias != (outputs,):
        return Refusal(f"its bias has shape {list(bias or ())}, and it has {outputs} channels")
    written = site.integer_list("kernel_shape") or shape[2:]
    if written != shape[2:] or not fits_rank(site, len(shape) - 2):
        return Refusal(f"its attributes do not fit a weight of shape {list(shape)}")
    return shape


def fits_rank(site: Site, rank: int) -> bool:
    """True when every list among the attributes has an entry per spatial axis (pads have two).

    Kernels and steps are positive, nothing is padded by less than nothing, and auto_pad is a mode.
    """
    lists = {name: site.integer_list(name) for name in ("kernel_shape", "strides", "dilations")}
    pads, added = site.integer_list("pads"), site.integer_list("output_padding")
    positive = all(min(v, default=1) > 0 for v in lists.values() if v is not None)
    return (
        site.text("auto_pad", "") in _PADDINGS
        and all(len(v) == rank for v in lists.values() if v is not None)
        and positive
        and (pads is None or (len(pads) == 2 * rank and min(pads, default=0) >= 0))
        and (added is None or (len(added) == rank and min(added) >= 0))
    )


def resolve_pads(site: Site, kernel: tuple[int, ...]) -> tuple[tuple[int, ...], Size | None] | None:
    """Explicit pads, and the input size they hold for (None: every size).

    auto_pad SAME_UPPER and SAME_LOWER pad so that the output has ceil(size / stride) positions; the
    odd one goes behind or in front. With a stride that needs the size.

    Returns:
        None where the pads depend on a size that is not known.
    """
    rank = len(kernel)
    mode = site.text("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return site.integer_list("pads") or (0,) * (2 * rank), None
    if mode == "VALID":
        return (0,) * (2 * rank), None
    strides = site.integer_list("strides") or (1,) * rank
    dilations = site.integer_list("dilations") or (1,) * rank
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    strided = set(strides) != {1}
    size = site.size(site.input(0)) if strided else None
    if strided and size is None:
        return None
    begins, ends = [], []
    for axis, (extent, stride) in enumerate(zip(extents, strides, strict=True)):
        total = extent - 1
        if size is not None:
            total = max((-(-size[axis] // stride) - 1) * stride + extent - size[axis], 0)
        small = total // 2
        begins.append(small if mode == "SAME_UPPER" else total - small)
        ends.append(total - small if mode == "SAME_UPPER" else small)
    return (*begins, *ends), size
