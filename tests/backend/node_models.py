"""The node tests that onnx generates, as models with their inputs and expected outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

FORMS = ("as it is", "weights", "constant")


@dataclass(frozen=True)
class NodeModel:
    """One test in one form: as it is, with every input but the first fixed, or with all fixed."""

    name: str
    form: str
    proto: ModelProto
    feeds: dict[str, Any]
    expected: list[Any]
    rtol: float
    atol: float


@cache
def node_models() -> list[NodeModel]:
    """Every test in every form that it has."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # building the cases overflows on purpose
        cases = load_model_tests(kind="node")
    return [model for case in cases for form in FORMS for model in _in_form(case, form)]


def _in_form(case: Any, form: str) -> Iterator[NodeModel]:
    names = [value.name for value in case.model.graph.input]
    for arrays, outputs in case.data_sets:
        feeds = {n: _value(a) for n, a in zip(names, arrays, strict=True)}
        proto, open_ones = ModelProto(), names
        proto.CopyFrom(case.model)
        if form != "as it is":
            open_ones = names[:1] if form == "weights" else []
            fixed = _fix(proto, {n: a for n, a in feeds.items() if n not in open_ones})
            if not fixed:
                return
            feeds = {n: a for n, a in feeds.items() if n not in fixed}
        name = f"{case.name}, {form}"
        yield NodeModel(
            name, form, proto, feeds, [_value(a) for a in outputs], case.rtol, case.atol
        )


def _value(given: Any) -> Any:
    if isinstance(given, TensorProto):
        return numpy_helper.to_array(given)
    return np.asarray(given) if isinstance(given, np.generic) else given


def _fix(model: ModelProto, values: dict[str, Any]) -> set[str]:
    """Makes initializers of those inputs that are dense tensors; returns which."""
    dense = {i.name: i for i in model.graph.input if i.type.HasField("tensor_type")}
    fixed = {name for name in values if name in dense}
    for name in sorted(fixed):
        model.graph.initializer.append(_tensor(values[name], dense[name]))
    kept = [i for i in model.graph.input if i.name not in fixed]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)
    return fixed


def _tensor(value: Any, info: onnx.ValueInfoProto) -> TensorProto:
    if info.type.tensor_type.elem_type == TensorProto.STRING:
        return onnx.helper.make_tensor(
            info.name, TensorProto.STRING, value.shape, [str(s).encode() for s in value.ravel()]
        )
    tensor = numpy_helper.from_array(np.asarray(value), info.name)
    assert tensor.data_type == info.type.tensor_type.elem_type, info.name
    return tensor
