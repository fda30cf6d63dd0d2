"""The comparison of an optimized model with the one that it was made from.

Both run on ONNX Runtime with its own optimizations off, and both are held against the same model in
float64, evaluated by onnx's reference implementation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import onnxfuse
from onnxfuse.affine import Refusal
from onnxfuse.graph import Graph
from onnxfuse.lift import RULES, Site, View
from onnxfuse.shapes import infer_types
from tests.lift.oracle import OWN

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
# Of float32 roundings at the size of the largest value: what the fused model may add where the
# original happens to be (almost) exact. Its weights were rounded once, and so was its bias.
ROUNDINGS = 8
FACTOR = 4


# Running ----------------------------------------------------------------------------------------


def run(model: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs, by ONNX Runtime with its graph optimizations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, dict(feeds)))


def truth(model: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of the model with every float widened to float64."""
    wide = widened(model)
    session = ReferenceEvaluator(wide, new_ops=OWN)
    values = {
        name: value.astype(np.float64) if is_float(value) else value
        for name, value in feeds.items()
    }
    with np.errstate(all="ignore"):
        return [np.asarray(value) for value in session.run(None, values)]


def is_float(value: np.ndarray) -> bool:
    return value.dtype.kind == "f" or value.dtype.name == "bfloat16"


def widened(model: ModelProto) -> ModelProto:
    """A copy in which float tensors of every width are float64."""
    wide = ModelProto()
    wide.CopyFrom(model)
    _widen(wide.graph)
    return wide


def _widen(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type in FLOATS:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _widen_tensor(attribute.t)
            elif attribute.type == AttributeProto.GRAPH:
                _widen(attribute.g)
            elif node.op_type == "Cast" and attribute.i in FLOATS:
                attribute.i = TensorProto.DOUBLE


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type in FLOATS:
        value = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def feeds_for(
    model: ModelProto, sizes: Mapping[str, int] | None = None, seed: int = 1
) -> dict[str, np.ndarray]:
    """Random inputs; `sizes` gives the symbolic dimensions."""
    rng = np.random.default_rng(seed)
    initialized = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for info in model.graph.input:
        if info.name in initialized:
            continue
        tensor = info.type.tensor_type
        shape = [
            d.dim_value if d.HasField("dim_value") else (sizes or {})[d.dim_param]
            for d in tensor.shape.dim
        ]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if tensor.elem_type == TensorProto.BOOL:
            feeds[info.name] = rng.random(shape) < 0.5
        elif tensor.elem_type in FLOATS:
            feeds[info.name] = np.asarray(rng.standard_normal(shape)).astype(dtype)
        else:
            feeds[info.name] = np.asarray(rng.integers(-9, 10, shape)).astype(dtype)
    return feeds


# Comparing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folded:
    """An optimized model: its operators, its report, and the model itself."""

    ops: Counter[str]
    report: onnxfuse.Report
    model: ModelProto

    @property
    def reasons(self) -> str:
        return " | ".join(f"{r.operator}: {r.reason}" for r in self.report.refusals)

    def weight(self, index: int = 0) -> np.ndarray:
        return numpy_helper.to_array(self.model.graph.initializer[index])

    def node(self, op_type: str) -> NodeProto:
        (found,) = [node for node in self.model.graph.node if node.op_type == op_type]
        return found


def operators(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from operators(attribute.g)


def optimized(
    model: ModelProto,
    *sizes: Mapping[str, int],
    feeds: Sequence[Mapping[str, np.ndarray]] = (),
    original_runs: bool = True,
    truth_runs: bool = True,
    skip: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> Folded:
    """Optimizes, and checks everything that holds for every model.

    Args:
        model: The model.
        sizes: Values of the symbolic dimensions, one set per comparison.
        feeds: Inputs of further comparisons.
        original_runs: False where ONNX Runtime lacks something that the original needs.
        truth_runs: False where the reference implementation and ONNX Runtime read the
            specification differently.
        skip: As in `onnxfuse.optimize`.
        keep: As in `onnxfuse.optimize`.
    """
    onnx.checker.check_model(model, full_check=True)
    before = model.SerializeToString(deterministic=True)
    result = onnxfuse.optimize(model, skip=skip, keep=keep)
    assert model.SerializeToString(deterministic=True) == before, "the input was changed"
    onnx.checker.check_model(result.model, full_check=True)
    assert [o.name for o in result.model.graph.output] == [o.name for o in model.graph.output]
    assert list(result.model.graph.output) == list(model.graph.output)
    assert_inputs_kept(model, result.model)
    for fold in result.report.folds:
        assert fold.before != fold.after, fold
    for number, given in enumerate((*sizes, *(() if sizes or feeds else ({},)))):
        inputs = feeds_for(model, given, seed=number + 1)
        assert_agrees(model, result.model, inputs, original_runs, truth_runs)
    for given in feeds:
        assert_agrees(model, result.model, given, original_runs, truth_runs)
    again = onnxfuse.optimize(result.model, skip=skip, keep=keep).model
    assert again.SerializeToString(deterministic=True) == result.model.SerializeToString(
        deterministic=True
    ), "a second run changes the result"
    return Folded(Counter(operators(result.model.graph)), result.report, result.model)


def left_alone(model: ModelProto) -> None:
    """For models that no runtime takes: every node stays as it is."""
    result = onnxfuse.optimize(model)
    assert list(result.model.graph.node) == list(model.graph.node)


def refusal(model: ModelProto, op_type: str, rank: int = 4) -> str:
    """Why the rule does not lift the only such node as an image.

    What is left of a stretch that was probed in vain is reported with the probe's reason.
    """
    types = infer_types(model)
    graph = Graph(model.graph, model.opset_import[0].version, model.ir_version, types=types)
    (node,) = [n for n in graph.nodes if n.op_type == op_type]
    found = RULES[op_type](Site(graph, node, node.output[-1], View.image(rank)))
    assert isinstance(found, Refusal), found
    return found.reason


def assert_inputs_kept(original: ModelProto, fused: ModelProto) -> None:
    if original.ir_version >= 4:
        assert list(fused.graph.input) == list(original.graph.input)
        return
    weights = {tensor.name for tensor in original.graph.initializer}
    new = {tensor.name for tensor in fused.graph.initializer}
    kept = [i.name for i in original.graph.input if i.name not in weights]
    assert [i.name for i in fused.graph.input if i.name not in new] == kept
    assert new <= {i.name for i in fused.graph.input}


def assert_agrees(
    original: ModelProto,
    fused: ModelProto,
    feeds: Mapping[str, np.ndarray],
    original_runs: bool = True,
    truth_runs: bool = True,
) -> None:
    """The fused model is as near to the float64 result as the original, up to a small factor."""
    actual = run(fused, feeds)
    exact = truth(original, feeds) if truth_runs else None
    if original_runs:
        expected = run(original, feeds)
    else:
        assert exact is not None
        expected = [wide.astype(given.dtype) for wide, given in zip(exact, actual, strict=True)]
    for index, info in enumerate(original.graph.output):
        wide = exact[index] if exact is not None else expected[index]
        where = f"{info.name} for {shapes_of(feeds)}"
        assert_close(expected[index], actual[index], wide, where, _largest(feeds))


def _largest(feeds: Mapping[str, np.ndarray]) -> float:
    return max(
        (float(np.max(np.abs(v.astype(np.float64)), initial=0.0)) for v in feeds.values()),
        default=0.0,
    )


def shapes_of(feeds: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in feeds.items()}


def assert_close(
    original: np.ndarray, fused: np.ndarray, exact: np.ndarray, where: str, scale: float = 0.0
) -> None:
    """Compares one output; where terms cancel, their roundings are of the size of `scale`."""
    assert fused.dtype == original.dtype, where
    assert fused.shape == original.shape, f"{where}: {fused.shape}, not {original.shape}"
    if not is_float(original):
        np.testing.assert_array_equal(fused, original, where)
        return
    assert exact.shape == original.shape, f"{where}: the oracle disagrees about the shape"
    epsilon = float(np.finfo(original.dtype).eps) if original.dtype.kind == "f" else 2.0**-7
    if exact is original:  # nothing more exact is at hand
        exact = original.astype(np.float64)
        epsilon *= FACTOR
    usual = distance(original, exact)
    largest = float(np.max(np.abs(exact), initial=0.0, where=np.isfinite(exact)))
    bound = 2000 * epsilon * max(largest, scale)
    assert usual <= bound, f"{where}: the oracle disagrees by {usual}"
    allowed = FACTOR * usual + ROUNDINGS * epsilon * largest
    found = distance(fused, exact)
    assert found <= allowed, f"{where}: off by {found}, the original by {usual}"


def distance(value: np.ndarray, exact: np.ndarray) -> float:
    wide = value.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(wide - exact)
    equal = (wide == exact) | (np.isnan(wide) & np.isnan(exact))
    return float(np.max(np.where(equal, 0.0, difference), initial=0.0))
