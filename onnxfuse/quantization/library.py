"""onnxruntime.quantization, as it is used here: quietly, and one sample at a time."""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal, get_args

import onnx

from onnxfuse import io
from onnxfuse.calibration import Samples
from onnxfuse.errors import ModelError, OnnxfuseError
from onnxfuse.exporter.pytorch import said
from onnxfuse.graph import TensorType
from onnxfuse.hollow import payload_bytes, tensors
from onnxfuse.quantization.guarding import guarded
from onnxfuse.quantization.hiding import hidden, shown
from onnxfuse.quantization.naming import in_the_way, rename
from onnxfuse.quantization.scales import scale_overrides
from onnxfuse.runtime import Feeds
from onnxfuse.shapes import infer_types

Method = Literal["minmax", "percentile", "entropy"]
METHODS: tuple[Method, ...] = get_args(Method)
_NAMES = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
_FLOATS = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
_LARGE = 1 << 30  # bytes of weights, beyond which the library is to keep them beside the model

Tell = Callable[[str, int, int | None], None]
"""Is told what is being done, how much of it is done, and of how much, if that is known."""
_Aloud = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Recipe:
    """How a model is quantized.

    Attributes:
        method: How the range of a tensor follows from the values that it has in the samples.
        weight_bits: 8, or 7 where products of 8 bits would saturate; see `scales`.
        exclude: Names of nodes that stay float.
    """

    method: Method
    weight_bits: int
    exclude: tuple[str, ...] = ()


def quantized(
    model: onnx.ModelProto, samples: Samples, recipe: Recipe, tell: Tell, *, label: str = ""
) -> onnx.ModelProto:
    """A model in int8, with QuantizeLinear and DequantizeLinear around its operators (QDQ).

    Activations are uint8, with a scale and a zero point for each tensor; weights int8, symmetric,
    with a scale for each channel. Samples are read, run and forgotten one after the other.

    Args:
        model: A float model of opset 13 or later; every node has a name.
        samples: What it is calibrated with.
        recipe: How.
        tell: Told how many samples have been run.
        label: What is said to be calibrated.

    Raises:
        ModelError: A sample cannot be read, or the library cannot quantize the model.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    large = sum(map(payload_bytes, tensors(model))) > _LARGE
    version, others = model.ir_version, in_the_way(model)
    model = _apart(model, others)
    left = hidden(model, recipe.exclude)
    with tempfile.TemporaryDirectory(prefix="onnxfuse-") as folder, _quiet() as aloud:
        given, made = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        io.write(model, given)
        step, total = f"calibrating{label}", len(samples)
        overrides = scale_overrides(model, recipe.weight_bits)
        reader = _Reader(samples, others, lambda done: tell(step, done, total), aloud)
        try:
            quantize_static(
                str(given),
                str(made),
                reader,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=recipe.weight_bits == 7,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=getattr(CalibrationMethod, _NAMES[recipe.method]),
                use_external_data_format=large,
                extra_options={"CalibStridedMinMax": 1, "TensorQuantOverrides": overrides},
            )
        except OnnxfuseError:
            raise
        except Exception as error:  # the library raises whatever it comes upon
            raise ModelError(f"ONNX Runtime cannot quantize it: {said(error)}") from error
        source = io.read(made)
        source.embed()
    shown(source.model, left)
    guarded(source.model)
    source.model.ir_version = version
    rename(source.model.graph, {new: name for name, new in others.items()})
    return source.model


def _apart(model: onnx.ModelProto, names: Mapping[str, str]) -> onnx.ModelProto:
    """A copy with other names, and without outputs that are inputs: the library makes them anew."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    given = {value.name for value in made.graph.input}
    outputs = [value for value in model.graph.output if value.name not in given]
    del made.graph.output[:]
    made.graph.output.extend(outputs)
    rename(made.graph, names)
    return made


def taken(model: onnx.ModelProto, exclude: Container[str]) -> list[onnx.NodeProto]:
    """The nodes that the library would quantize: where there are none, ONNX Runtime warns."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    known = {*QDQRegistry, *QLinearOpsRegistry}  # what quantize_static takes if not told
    types = infer_types(model)
    return [
        node
        for node in model.graph.node
        if node.op_type in known
        and node.name not in exclude
        and any(types.get(name, TensorType()).elem_type in _FLOATS for name in node.input)
    ]


def preprocessed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model as the library recommends to prepare it: ONNX Runtime's own basic optimizations.

    Raises:
        ModelError: The library cannot prepare it.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(prefix="onnxfuse-") as folder, _quiet():
        given, made = Path(folder) / "model.onnx", Path(folder) / "prepared.onnx"
        io.write(model, given)
        try:
            quant_pre_process(str(given), str(made), skip_symbolic_shape=True)
        except Exception as error:  # as above
            raise ModelError(f"ONNX Runtime cannot prepare it: {said(error)}") from error
        source = io.read(made)
        source.embed()
    return source.model


class _Reader:
    """Samples as the library reads them: onnxruntime.quantization.CalibrationDataReader."""

    def __init__(
        self,
        samples: Samples,
        names: Mapping[str, str],
        tell: Callable[[int], None],
        aloud: _Aloud,
    ) -> None:
        self._samples, self._names, self._tell, self._aloud = samples, names, tell, aloud
        self._next, self._end = 0, len(samples)

    def __len__(self) -> int:
        return len(self._samples)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Which runs come next."""
        self._next, self._end = start_index, end_index

    def get_next(self) -> Feeds | None:
        """The next run's inputs; None behind the last."""
        if self._next >= self._end:
            return None
        with self._aloud():
            self._tell(self._next)
            feeds = self._samples[self._next]
        self._next += 1
        return {self._names.get(name, name): value for name, value in feeds.items()}


@contextmanager
def _quiet() -> Iterator[_Aloud]:
    """Silences the library, which prints, warns, and logs as if it were the whole program.

    Yields:
        A context in which what is printed is seen all the same.
    """
    root = logging.getLogger()
    level, nothing = root.level, logging.NullHandler()
    out, err = sys.stdout, sys.stderr

    @contextmanager
    def aloud() -> Iterator[None]:
        with redirect_stdout(out), redirect_stderr(err):
            yield

    root.addHandler(nothing)  # or else the first message would install one for good
    root.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield aloud
    finally:
        root.setLevel(level)
        root.removeHandler(nothing)
