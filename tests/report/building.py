"""Models and results to make pages of."""

import numpy as np
from onnx import helper, numpy_helper

from onnxfuse.benchmark import BenchResult
from onnxfuse.benchmark.result import Interval, Timing
from onnxfuse.certify import Certificate
from onnxfuse.compression.result import Compressed, CompressReport, LeftAlone, OutputError
from onnxfuse.equalization import Equalized
from onnxfuse.parity import CheckResult, Closeness, Divergence, Meaning, OutputParity
from onnxfuse.quantization import Form, Quality, Quantized, QuantizeReport
from onnxfuse.report.report import Refused
from tests.handmade import build, value


def two_branches(name="", weight=None, dtype=np.float32):
    """Conv 3x3 + Conv 1x1, under names that end in `name`."""
    rng = np.random.default_rng(7)
    wide = rng.standard_normal((4, 4, 3, 3)) if weight is None else weight
    weights = [
        numpy_helper.from_array(wide.astype(dtype), f"wide{name}"),
        numpy_helper.from_array(rng.standard_normal((4, 4, 1, 1)).astype(dtype), f"point{name}"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", f"wide{name}"], [f"a{name}"], f"first{name}", pads=[1] * 4),
        helper.make_node("Conv", ["x", f"point{name}"], [f"b{name}"], f"second{name}"),
        helper.make_node("Add", [f"a{name}", f"b{name}"], [f"c{name}"], f"sum{name}"),
        helper.make_node("Relu", [f"c{name}"], ["y"], f"relu{name}"),
    ]
    elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return build(nodes, [value("x", (1, 4, 8, 8), elem_type)], weights=weights)


def closeness(**changed):
    held = {
        "max_abs": 2.5e-7,
        "max_rel": 1e-5,
        "relative_l2": 3.1e-7,
        "snr_db": 130.2,
        "cosine": 0.999999999,
        "top1": 1.0,
        "within": 1.0,
        "ulps": (700, 200, 80, 15, 4, 1, 0, 0, 0),
    }
    return Closeness(**{**held, **changed})


def output(inputs="1x3x32x32 normal", name="y", reason="", **changed):
    held = {
        "provider": "cpu",
        "inputs": inputs,
        "output": name,
        "dtype": "float32",
        "shape": (1, 10),
        "closeness": closeness(),
        "first_error": 1.2e-7,
        "second_error": 1.5e-7,
        "bound": 4e-7,
        "reason": reason,
    }
    return OutputParity(**{**held, **changed})


def checked(fold=None, *, agrees=True):
    """A comparison of three cases; where they do not agree, of two that differ."""
    reason = "" if agrees else "further from the truth than rounding explains"
    worse = {} if agrees else {"second_error": 3e-2}
    part = Divergence(
        "c", "Conv 'c/Conv'", (("first", "Conv"), ("sum", "Add")), fold, 3, 81.5, "zeros", "float64"
    )
    return CheckResult(
        "before.onnx",
        "after.onnx",
        "float64",
        (
            output(),
            output("1x3x64x32 normal", reason=reason, **worse),
            output("1x3x32x32 zeros", first_error=0.0, second_error=0.0, bound=0.0),
        ),
        (Meaning("1x3x32x32", "y", 0.42 if agrees else 81.5, 3, agrees),),
        None if agrees else part,
        ("the inputs were cut to 1x3x32x32",),
    )


def timing(model, latency, ratio, provider="cpu", batch=1, **changed):
    held = {
        "shapes": {"x": (batch, 3, 224, 224)},
        "throughput": batch / latency,
        "peak_memory": 123_456_789,
        "session_seconds": 0.21,
        "seconds": (latency,) * 5,
    }
    return Timing(
        model=model,
        provider=provider,
        batch=batch,
        latency=Interval(latency, latency * 0.97, latency * 1.05),
        ratio=Interval(ratio, ratio * 0.96, ratio * 1.03),
        **{**held, **changed},
    )


def measured():
    """Two models, at two batch sizes."""
    share = {"Conv": 0.91, "Relu": 0.0704, "Add": 0.0003, "Reorder": 0.0193}
    return BenchResult(
        (
            timing("before.onnx", 21.55e-3, 1.0, operators=share),
            timing("after.onnx", 5.85e-3, 3.69),
            timing("before.onnx", 160e-3, 1.0, batch=8),
            timing("after.onnx", 46e-3, 3.48, batch=8, peak_memory=None),
        ),
        1,
        "all",
        {"processor": "A processor, 2 cores", "onnxruntime": "1.32.0"},
        ("another process was at work",),
    )


def _form(name, snr, milliseconds, megabytes, accuracy=0.98):
    error = None if snr is None else 10 ** (-snr / 20)
    ratio, latency = 2.0 / milliseconds, milliseconds * 1e-3
    return Form(
        name,
        round(megabytes * 2**20),
        Quality(accuracy, snr, error),
        Interval(latency, latency * 0.97, latency * 1.05),
        Interval(ratio, ratio * 0.96, ratio * 1.03),
    )


def quantized(**changed):
    """A model in five forms, of which one could not be made."""
    held = {
        "forms": (
            _form("float", None, 3.0, 4.0, 0.99),
            _form("float, folded", 120.5, 2.0, 3.0, 0.99),
            Form("int8", failure="the quantizer does not know it"),
            _form("int8, folded", 12.25, 1.0, 0.8, 0.5),
            _form("int8, folded, equalized", 31.5, 1.25, 1.0),
        ),
        "operators": (Quantized("Conv", 7, 8), Quantized("Gemm", 1, 1)),
        "left": (Refused("first", "Conv", "it is to stay float"),),
        "equalized": (
            Equalized("a", "Conv", "scaled", Certificate(2e-16, ((1, 3),))),
            Equalized("b", "PRelu", "scaled", Certificate(4e-16, ((1, 3),))),
            Equalized("c", "Conv", "split", Certificate(3e-16, ((1, 3),))),
        ),
        "method": "minmax",
        "weight_bits": 7,
        "weight_bits_reason": "sums saturate",
        "calibration": "images",
        "calibrated": 40,
        "evaluation": "others.npz",
        "evaluated": 1,
        "machine": {"processor": "A processor, 2 cores", "onnxruntime": "1.32.0"},
        "notes": ("the model is float16",),
    }
    return QuantizeReport(**{**held, **changed})


def compressed(count=3, **changed):
    """Some weights in integers, the later ones the worse, and one in float."""
    held = {
        "compressed": tuple(
            Compressed(f"w{n}", f"conv{n}", (8, 4, 3, 3), 4, 32, "float16", 30.0 - n, 1152, 200)
            for n in range(count)
        ),
        "left": (LeftAlone("v", "last", "something else reads it"),),
        "bits": 4,
        "block": 32,
        "budget": None,
        "folded": 5,
        "opset": (17, 21),
        "bytes_before": 40_960,
        "bytes_after": 8_192,
        "error": OutputError(0.0123, 38.2, 2, "given"),
    }
    return CompressReport(**{**held, **changed})
