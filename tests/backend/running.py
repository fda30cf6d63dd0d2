"""ONNX Runtime on models whose types numpy may lack: bfloat16, 8 bits and 4 bits."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime import OrtValue


def run(model: ModelProto, feeds: Mapping[str, Any]) -> list[Any]:
    """The outputs, graph optimizations off; lists where the model gives sequences."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    types = [info.type.tensor_type.elem_type for info in model.graph.output]
    if all(not kind or _is_known(kind) for kind in types):
        given = {n: v if _is_plain(v) else _as_ort(v) for n, v in feeds.items()}
        return list(session.run(None, given))
    values = session.run_with_ort_values(None, {n: _as_ort(v) for n, v in feeds.items()})
    return [_as_numpy(value) for value in values]


def _is_known(kind: int) -> bool:
    return helper.tensor_dtype_to_np_dtype(kind).isbuiltin == 1


def _is_plain(value: Any) -> bool:
    return not isinstance(value, np.ndarray) or value.dtype.isbuiltin == 1


def _as_ort(value: Any) -> OrtValue:
    array = np.asarray(value)
    if _is_plain(array):
        return OrtValue.ortvalue_from_numpy(array)
    tensor = numpy_helper.from_array(array)
    made = OrtValue.ortvalue_from_shape_and_type(array.shape, tensor.data_type)
    ctypes.memmove(made.data_ptr(), tensor.raw_data, len(tensor.raw_data))
    return made


def _as_numpy(value: OrtValue) -> np.ndarray:
    kind = value.element_type()
    if _is_known(kind):
        return value.numpy()
    tensor = TensorProto(data_type=kind, dims=value.shape())
    tensor.raw_data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return numpy_helper.to_array(tensor)
