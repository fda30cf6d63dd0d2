"""MatMul and Gemm with one constant operand: an AffineConv without spatial axes."""

from __future__ import annotations

from onnxfuse.affine import Array, Deferred, FixedWindow, Refusal, affine_conv
from onnxfuse.lift.convolution import unary
from onnxfuse.lift.site import Site, Step, View


def matmul(site: Site) -> Step | Refusal:
    """MatMul(x, W) mixes the last axis of x, MatMul(W, x) the one before; W has two dimensions."""
    left, right = site.input(0), site.input(1)
    by_right = site.graph.is_constant(right)
    if site.graph.is_constant(left) == by_right:
        return Refusal("a product of two tensors that are both computed")
    data, weight = (left, right) if by_right else (right, left)
    shape = site.shape_of(weight) or ()
    rank = site.type(data).rank
    if len(shape) != 2:
        return Refusal(f"its constant has shape {list(shape)}")
    if rank is None:
        return Refusal("the rank of its input is not known")
    if site.view != View.matrix(rank - 1 if by_right else rank - 2, rank):
        return Refusal("its channels are not on the axis at hand")
    stored = site.float64(weight)
    weight_of = Deferred(lambda: stored().T) if by_right else stored
    return unary(data, affine_conv(weight_of, shape=shape[::-1] if by_right else shape))


def gemm(site: Site) -> Step | Refusal:
    """Gemm(x, B, C) -> alpha x' B' + beta C, for constant B, and C the same for every row."""
    data, weight, shift = site.input(0), site.input(1), site.input(2)
    shape = site.shape_of(weight) or ()
    if len(shape) != 2:
        return Refusal("its second operand is not a constant matrix")
    alpha, beta = site.real("alpha", 1.0), site.real("beta", 1.0)
    transposed = bool(site.integer("transB", 0))
    stored = site.float64(weight)
    bias: Deferred | None = None
    if shift:
        value = site.per_channel(shift, site.output)
        if isinstance(value, Refusal):
            return value
        bias = Deferred(lambda: beta * value())

    def weight_of() -> Array:
        return alpha * (stored() if transposed else stored().T)

    outputs, inputs = shape if transposed else shape[::-1]
    if not site.integer("transA", 0):
        return unary(data, affine_conv(Deferred(weight_of), bias, shape=(outputs, inputs)))
    term = FixedWindow(
        op_type="Gemm",
        out_channels=outputs,
        in_channels=inputs,
        kernel=(),
        groups=1,
        weight_of=Deferred(weight_of),
        bias_of=bias,
        attributes={"transA": 1},
        sees_border=False,
    )
    return Step((data,), lambda maps, size: term, extends=False)
