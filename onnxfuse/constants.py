"""Constant folding: values of nodes that depend on constants alone.

Constant, Identity and Shape are read off. ONNX Runtime evaluates everything else, all nodes of a
round in one session, so a folded value is bit for bit what the runtime would have computed. Only
nodes whose results have a known size are evaluated; sizes that depend on values become known from
round to round.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from onnxfuse.graph import Array, Graph, TensorType
from onnxfuse.growth import unprofitable
from onnxfuse.messages import attributes, bodies, operator
from onnxfuse.quantized import QUANTIZING
from onnxfuse.shapes import INLINE_BYTES, infer_types

_STANDARD = ("", "ai.onnx")
_ROUNDS = 64
_LARGEST_INTEGER = int(np.iinfo(np.int64).max)

# The types that ONNX Runtime's Python API takes and returns.
_RUNNABLE = frozenset(
    onnx.helper.np_dtype_to_tensor_dtype(np.dtype(code)) for code in "?bBhHiIqQefd"
)
# Random operators differ from run to run; quantized weights are left to the runtime's int8 kernels.
_LEFT_ALONE = QUANTIZING | {
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"),
    "RandomUniformLike",
}
_DIVISIONS = frozenset({"Div", "Mod"})
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE})
_BOUNDED = frozenset({"Compress", "NonZero", "Unique"})  # no more elements than the input's indices
_RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


def fold_constants(graph: Graph, model: onnx.ModelProto, limit: int = 256 << 20) -> None:
    """Replaces what depends on constants alone by its value; the graph is changed, not committed.

    Left as they are: random and quantizing operators, operators outside the standard, nodes with
    bodies, strings, types that ONNX Runtime's Python API lacks (bfloat16, float8, int4), nodes that
    the runtime cannot run, nodes that nobody reads, and nodes whose values would make the
    file grow (see `unprofitable`). An output of the graph keeps its name as an initializer; before
    IR version 4, and in bodies, the node that makes it stays.

    Args:
        graph: The graph.
        model: The model that it belongs to.
        limit: Bytes that evaluation may allocate for results and intermediates, all together.
    """
    if not graph.takes_initializers:
        return
    redefined = {f.name for f in model.functions if f.domain in _STANDARD}
    folder = _Folder(graph, _LEFT_ALONE | redefined, limit)
    folder.find()
    folder.evaluate()
    kept = unprofitable(graph, folder.values, folder.done)
    for name, value in folder.values.items():
        if graph.producers[name] not in kept:
            graph.add_constant(name, value)
    for index in folder.done - kept:
        graph.remove(index)


class _Folder:
    """Finds and evaluates the constant nodes of a graph.

    Attributes:
        values: Values of tensors that an unevaluated node, or somebody outside, reads.
        done: Indices of the nodes that are evaluated.
    """

    def __init__(self, graph: Graph, left_alone: frozenset[str], limit: int) -> None:
        self.graph = graph
        self.values: dict[str, Array] = {}
        self.done: set[int] = set()
        self._left_alone = left_alone
        self._left_bytes = limit
        self._pending: list[int] = []
        self._failed: set[tuple[str | int, ...]] = set()
        self._types: dict[str, TensorType] = {}

    def is_known(self, name: str) -> bool:
        """True when the tensor's value is at hand."""
        return name in self.values or self.graph.is_constant(name)

    def value(self, name: str) -> Array:
        """The value of a known tensor."""
        value = self.values.get(name)
        value = self.graph.constant(name) if value is None else value
        assert value is not None
        return value

    def type(self, name: str) -> TensorType:
        """The type of a known tensor."""
        if name not in self.values:
            return self.graph.type(name)
        value = self.values[name]
        return TensorType(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)

    # Finding -----------------------------------------------------------------------------------

    def find(self) -> None:
        """Sorts the nodes: value read off, to be evaluated, or neither."""
        expected: set[str] = set()
        for index, node in enumerate(self.graph.nodes):
            if not self._may_go(node):
                continue
            value = self._read_off(node)
            if value is not None:
                self.values[node.output[0]] = value
                self.done.add(index)
            elif self._is_evaluable(node) and self._has_inputs(node, expected):
                self._pending.append(index)
                expected.update(node.output)

    def _may_go(self, node: onnx.NodeProto) -> bool:
        graph = self.graph
        outputs = [name for name in node.output if name]
        if node.domain not in _STANDARD or node.op_type in self._left_alone:
            return False
        if any(name in graph.keep for name in outputs):
            return False
        if any(name in graph.outputs for name in outputs):
            return graph.outer is None and graph.ir_version >= 4
        return any(name in graph.consumers for name in outputs)

    def _is_evaluable(self, node: onnx.NodeProto) -> bool:
        if node.op_type == "Dropout" and (self.graph.opset < 7 or len(node.input) > 2):
            return False  # may be in training mode
        return any(node.input) and not any(bodies(node))

    def _read_off(self, node: onnx.NodeProto) -> Array | None:
        """The value of a node's output, where that takes no computation."""
        if node.op_type == "Constant":
            return _constant_value(self.graph, node)
        if node.op_type == "Identity" and self.is_known(node.input[0]):
            known = self.type(node.input[0]).elem_type
            return None if known == TensorProto.STRING else self.value(node.input[0])
        dims = self._dims_read(node)
        if dims is None or not all(isinstance(dim, int) for dim in np.ravel(dims)):
            return None
        if node.op_type == "Size":
            count = math.prod(dims.tolist())
            return np.asarray(count, np.int64) if count <= _LARGEST_INTEGER else None
        return dims.astype(np.int64)

    def _dims_read(self, node: onnx.NodeProto) -> NDArray[np.object_] | None:
        """The dimensions that a Shape, a Size, or a Gather behind a Shape gives, known or not."""
        options = attributes(node)
        if node.op_type in ("Shape", "Size"):
            shape = self.graph.type(node.input[0]).shape
            if shape is None:
                return None
            start = options["start"].i if "start" in options else 0
            end = options["end"].i if "end" in options else len(shape)
            return np.array(shape, object)[start:end]
        if node.op_type != "Gather" or ("axis" in options and options["axis"].i not in (0, -1)):
            return None
        source = self.graph.producers.get(node.input[0])
        if source is None or operator(self.graph.nodes[source]) != "Shape":
            return None
        dims = self._dims_read(self.graph.nodes[source])
        if dims is None or not self.is_known(node.input[1]):
            return None
        indices = np.asarray(self.value(node.input[1]), np.int64)
        if np.any(indices < -len(dims)) or np.any(indices >= len(dims)):
            return None
        return np.asarray(np.take(dims, indices), object)

    # Evaluating --------------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Evaluates, round by round, all nodes whose results have a known and bearable size."""
        for _ in range(_ROUNDS):
            ready = self._ready() if self._pending else []
            if not ready:
                return
            self._run(ready)
            self._pending = [index for index in self._pending if index not in self.done]

    def _ready(self) -> list[int]:
        """The nodes to evaluate now, in order. Forgets those that never can be."""
        self._types = infer_types(self._submodel(self._pending, ()))
        ready: list[int] = []
        pending: list[int] = []
        offered: set[str] = set()
        waiting: set[str] = set()
        for index in self._pending:
            node = self.graph.nodes[index]
            if not self._has_inputs(node, offered):
                continue
            pending.append(index)
            offered.update(node.output)
            size = None if waiting.intersection(node.input) else self._result_bytes(node)
            if size is None or size > self._left_bytes:
                waiting.update(filter(None, node.output))
            else:
                self._left_bytes -= size
                ready.append(index)
        self._pending = pending
        return ready

    def _result_bytes(self, node: onnx.NodeProto) -> int | None:
        """A bound on the bytes that a node makes; None where there is none, or no such type."""
        inputs = [self._types.get(name, TensorType()) for name in node.input if name]
        outputs = [self._types.get(name, TensorType()) for name in node.output if name]
        if any(kind.elem_type not in _RUNNABLE for kind in (*inputs, *outputs)):
            return None
        if node.op_type in _DIVISIONS and not self._is_safe_divisor(node.input[1]):
            return None
        if node.op_type in _BOUNDED:
            elements = _elements(inputs[0])
            rows = max(inputs[0].rank or 0, len(outputs))
            return None if elements is None else 8 * elements * rows
        sizes = [_bytes(kind) for kind in outputs]
        return sum(size for size in sizes if size) if None not in sizes else None

    def _is_safe_divisor(self, name: str) -> bool:
        """False for integers by which a processor may fail to divide: 0, and -1."""
        if not self.is_known(name):
            return self._types.get(name, TensorType()).elem_type in _FLOATS
        value = self.value(name)
        return value.dtype.kind == "f" or not (np.any(value == 0) or np.any(value + 1 == 0))

    def _run(self, indices: Sequence[int]) -> None:
        """Evaluates nodes in one session; when that fails, in halves, to leave out the culprits."""
        nodes: list[int] = []
        made: set[str] = set()
        for index in indices:
            node = self.graph.nodes[index]
            if self._has_inputs(node, made):
                nodes.append(index)
                made.update(node.output)
        if not nodes:
            return
        wanted = self._read_outside(nodes)
        model = self._submodel(nodes, wanted)
        feeds = {i.name: np.asarray(self.value(i.name), order="C") for i in model.graph.input}
        try:
            results = _session(model).run(wanted, feeds)
        except _RUNTIME_ERRORS:
            if len(nodes) > 1:
                self._run(nodes[: len(nodes) // 2])
                self._run(nodes[len(nodes) // 2 :])
            else:
                self._failed.add(self._signature(self.graph.nodes[nodes[0]]))
            return
        self.values.update(zip(wanted, map(np.asarray, results), strict=True))
        self.done.update(nodes)

    def _has_inputs(self, node: onnx.NodeProto, made: set[str]) -> bool:
        """True for a node that can be evaluated once the tensors in `made` are there."""
        known = all(not name or name in made or self.is_known(name) for name in node.input)
        return known and self._signature(node) not in self._failed

    def _signature(self, node: onnx.NodeProto) -> tuple[str | int, ...]:
        """The operator and its input types; where one such node fails, no other is tried."""
        types = (self._types.get(name, TensorType()).elem_type for name in node.input)
        return (node.op_type, *types)

    def _read_outside(self, nodes: Sequence[int]) -> list[str]:
        """The tensors that nodes make for others than themselves."""
        inside = frozenset(nodes)
        return [
            name
            for index in nodes
            for name in self.graph.nodes[index].output
            if name in self.graph.outputs
            or any(reader not in inside for reader in self.graph.consumers.get(name, ()))
        ]

    def _submodel(self, nodes: Sequence[int], outputs: Iterable[str]) -> onnx.ModelProto:
        """A model of some nodes; small constants are initializers in it, big ones are inputs."""
        sub = onnx.GraphProto(name="constants", node=[self.graph.nodes[index] for index in nodes])
        made = {name for node in sub.node for name in node.output}
        for name in dict.fromkeys(name for node in sub.node for name in node.input):
            if not name or name in made or not self.is_known(name):
                continue
            kind = self.type(name)
            if kind.elem_type in _RUNNABLE and (_bytes(kind) or 0) < INLINE_BYTES:
                sub.initializer.append(numpy_helper.from_array(self.value(name), name))
            else:
                info = onnx.helper.make_tensor_value_info(name, kind.elem_type, kind.shape)
                sub.input.append(info)
        sub.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        imports = [onnx.helper.make_opsetid("", self.graph.opset)]
        return onnx.ModelProto(ir_version=8, graph=sub, opset_import=imports)


def _elements(kind: TensorType) -> int | None:
    """Number of elements, where it is known."""
    sizes = [dim for dim in kind.shape or () if isinstance(dim, int)]
    return math.prod(sizes) if kind.shape is not None and len(sizes) == len(kind.shape) else None


def _bytes(kind: TensorType) -> int | None:
    elements = _elements(kind)
    if elements is None:
        return None
    return elements * int(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4  # failures are exceptions, and expected
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _constant_value(graph: Graph, node: onnx.NodeProto) -> Array | None:
    """The value of a Constant node; None for strings and sparse tensors."""
    attribute = next(iter(node.attribute), AttributeProto())
    if attribute.name == "value" and attribute.t.data_type != TensorProto.STRING:
        return graph.load(attribute.t)
    if attribute.type in (AttributeProto.FLOAT, AttributeProto.FLOATS):
        return np.asarray(onnx.helper.get_attribute_value(attribute), np.float32)
    if attribute.type in (AttributeProto.INT, AttributeProto.INTS):
        return np.asarray(onnx.helper.get_attribute_value(attribute), np.int64)
    return None
