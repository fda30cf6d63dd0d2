"""Networks, samples for them, and the comparison of an equalized model with what it was."""

from __future__ import annotations

import numpy as np
import onnx

from onnxfuse.equalization import EqualizeResult, equalize
from tests.lift.building import Builder
from tests.lift.comparing import is_float, run, truth

EXACT = 1e-6  # of the largest value: 8 roundings of float32


def samples(model: onnx.ModelProto, count: int = 3, seed: int = 0, **sizes: int):
    """Normal numbers for every input."""
    rng = np.random.default_rng(seed)
    given = {t.name for t in model.graph.initializer}

    def value(info: onnx.ValueInfoProto) -> np.ndarray:
        kind = info.type.tensor_type
        shape = [d.dim_value or sizes.get(d.dim_param, 8) for d in kind.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        return rng.standard_normal(shape).astype(dtype)

    inputs = [info for info in model.graph.input if info.name not in given]
    return [{info.name: value(info) for info in inputs} for _ in range(count)]


def equalized(model: onnx.ModelProto, *, exact: float = EXACT, **sizes: int) -> EqualizeResult:
    """The result, which computes what the model does: in float64, and in ONNX Runtime."""
    before = model.SerializeToString()
    result = equalize(model, samples(model, **sizes))
    assert model.SerializeToString() == before
    onnx.checker.check_model(result.model, full_check=True)
    for feeds in samples(model, seed=7, **sizes):
        for wide in (True, False):
            compute = truth if wide else run
            for old, new in zip(compute(model, feeds), compute(result.model, feeds), strict=True):
                assert old.shape == new.shape
                if is_float(old):
                    gap = np.max(np.abs(new - old), initial=0)
                    assert gap <= exact * (np.max(np.abs(old), initial=0) or 1)
    return result


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Its initializers."""
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}


def is_changed(result: EqualizeResult, model: onnx.ModelProto) -> bool:
    """True where any weight is another one than before."""
    old, new = weights(model), weights(result.model)
    return any(not np.array_equal(old[name], new[name]) for name in new if name in old)


def uneven(b: Builder, x: str, inputs: int, outputs: int, **settings: object) -> str:
    """A Conv whose output channels are of very different sizes."""
    kernel = settings.pop("kernel", (3, 3))
    group = int(str(settings.pop("group", 1)))
    sizes = 2.0 ** b.rng.uniform(-4, 4, outputs)
    weight = b.values(outputs, inputs // group, *kernel) * sizes.reshape(-1, 1, 1, 1)
    names = b.constant(weight), b.constant(b.values(outputs) * sizes)
    return b.op("Conv", x, *names, group=group, **settings)
