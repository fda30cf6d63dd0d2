"""What holds for every random model and what onnxfuse makes of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from hypothesis import event
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxfuse
from tests.lift.comparing import (
    FACTOR,
    ROUNDINGS,
    assert_close,
    assert_inputs_kept,
    distance,
    is_float,
    run,
)
from tests.lift.random_graphs import Model
from tests.lift.random_settings import WITHOUT_KERNELS
from tests.lift.random_truth import Feeds, inlined, spread, truth

EPSILON = {
    TensorProto.FLOAT: 2.0**-23,
    TensorProto.FLOAT16: 2.0**-10,
    TensorProto.BFLOAT16: 2.0**-7,
    TensorProto.DOUBLE: 2.0**-52,
}


def check(model: Model) -> None:
    """Structure, and outputs at several sizes and with weights overridden."""
    proto = model.proto
    onnx.checker.check_model(proto, full_check=True)
    before = proto.SerializeToString(deterministic=True)
    result = onnxfuse.optimize(proto)
    fused = result.model
    assert proto.SerializeToString(deterministic=True) == before, "the input was changed"
    onnx.checker.check_model(fused, full_check=True)
    assert list(fused.graph.output) == list(proto.graph.output)
    assert list(fused.functions) == list(proto.functions)
    assert_inputs_kept(proto, fused)
    initial = {tensor.name: tensor for tensor in fused.graph.initializer}
    for tensor in proto.graph.initializer:
        assert tensor.name not in model.overridable or initial[tensor.name] == tensor
    event(f"folds: {min(len(result.report.folds), 3)}")
    assert compare(model, fused, model.feeds()), "the model does not run at its own sizes"
    feeds = model.feeds(flag=False)
    if "flag" in feeds:
        compare(model, fused, feeds)
    if model.overridable:
        compare(model, fused, model.feeds(), model.overrides())
    for change in (1, 2) if model.sizes else ():
        compare(model, fused, model.feeds(change))
    again = onnxfuse.optimize(fused).model.SerializeToString(deterministic=True)
    assert again == fused.SerializeToString(deterministic=True), "a second run changes the result"


def compare(
    model: Model, fused: ModelProto, feeds: Feeds, overrides: Mapping[str, np.ndarray] | None = None
) -> bool:
    """Holds both against float64; False where the original does not run at these sizes."""
    kind, overrides = model.setting.elem_type, overrides or {}
    original = inlined(model.proto, overrides)
    try:
        exact = truth(original, feeds)
    except Exception:  # two branches may meet at some sizes only
        return False
    expected = None
    if kind != TensorProto.BFLOAT16:
        try:
            expected = run(model.proto, {**feeds, **overrides})
        except Exception:  # the runtime raises types of its own, C++ ones
            if model.setting.has_kernels:  # an image may be empty at some sizes only
                return False
    if not is_settled(original, feeds, EPSILON[kind], runs=expected is not None):
        event("a quantized value is at the edge of two codes")
        return True
    names = [info.name for info in original.graph.output]
    if expected is None or kind in WITHOUT_KERNELS:
        event("bound by how far roundings of constants carry")
        made = inlined(fused, overrides)
        bounds = allowed(original, made, feeds, EPSILON[kind])
        results = [truth(made, feeds)]
        if expected is not None:
            results.append(run(fused, {**feeds, **overrides}))
        for values in results:
            for name, value, wide, bound in zip(names, values, exact, bounds, strict=True):
                assert value.shape == wide.shape, name
                found = distance(value, wide)
                assert found <= bound, f"{name}: off by {found}, allowed {bound}"
        return True
    actual = run(fused, {**feeds, **overrides})
    scale = max(largest(value) for value in feeds.values() if is_float(value))
    for name, usual, found, wide in zip(names, expected, actual, exact, strict=True):
        off = distance(usual, wide)
        if kind == TensorProto.FLOAT16 and not off <= 2000 * EPSILON[kind] * max(
            largest(wide), scale
        ):
            event("the original overflows")
            continue
        assert_close(usual, found, wide, name, scale)
    return True


def allowed(original: ModelProto, fused: ModelProto, feeds: Feeds, epsilon: float) -> list[float]:
    """By output, how far roundings of constants and inputs carry it, in either model."""
    moves = zip(
        spread(original, feeds, epsilon),
        spread(fused, feeds, epsilon),
        truth(original, feeds),
        strict=True,
    )
    return [FACTOR * max(a, b) + ROUNDINGS * epsilon * largest(wide) for a, b, wide in moves]


def largest(value: np.ndarray) -> float:
    wide = value.astype(np.float64)
    return float(np.max(np.abs(wide), initial=0.0, where=np.isfinite(wide)))


def is_settled(model: ModelProto, feeds: Feeds, epsilon: float, runs: bool) -> bool:
    """False where rounding may decide which code a quantized value gets.

    Args:
        model: The model, functions in place.
        feeds: Its inputs.
        epsilon: A rounding of its type.
        runs: Whether ONNX Runtime runs it, to tell how large roundings are.
    """
    quantized = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    if not quantized:
        return True
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    probe = ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    kind = model.graph.input[0].type.tensor_type.elem_type
    probe.graph.output.extend(
        helper.make_tensor_value_info(name, kind, None)
        for name in dict.fromkeys(n.input[0] for n in quantized)
    )
    names = [info.name for info in probe.graph.output]
    exact = truth(probe, feeds)
    made = run(probe, feeds) if runs else None
    off = list(map(distance, made, exact)) if made else spread(probe, feeds, epsilon)
    found = dict(zip(names, zip(exact, off, strict=True), strict=True))
    for node in quantized:
        wide, rounded = found[node.input[0]]
        scale = float(values[node.input[1]])
        edge = np.abs(wide / scale - np.floor(wide / scale) - 0.5) * scale
        doubt = FACTOR * rounded + ROUNDINGS * epsilon * largest(wide)
        if not np.all(edge > doubt):
            return False
    return True
