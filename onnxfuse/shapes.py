"""Types of tensors: what onnx infers, and what the file declares where that leaves gaps."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import onnx
from onnx import TensorProto

from onnxfuse.ceiling import infer_pools_as_run
from onnxfuse.graph import Dim, TensorType
from onnxfuse.hollow import INLINE_BYTES, hollow, is_external, payload_bytes, tensors
from onnxfuse.loops import forget_unsteady_states
from onnxfuse.messages import attributes, bodies, operator

__all__ = [
    "INLINE_BYTES",
    "default_opset",
    "hollow",
    "infer_types",
    "is_external",
    "payload_bytes",
    "tensors",
]

ASIDE = "onnxfuse.unchecked"
"""A domain without definitions."""

_CUT = "onnxfuse.cut:"
_INTEGERS = frozenset({TensorProto.INT32, TensorProto.INT64})
_HOLDING = _INTEGERS | {TensorProto.FLOAT, TensorProto.DOUBLE}
_UNKNOWN = TensorType()
_GENERATED = "unk__"  # what onnx calls the dimensions it knows nothing of
_FATAL = frozenset({"RegexFullMatch"})  # onnx crashes where the type of its input is not known
_LONGEST = 1 << 10  # elements of a vector whose values may matter for shapes


def default_opset(model: onnx.ModelProto) -> int:
    """Version of the default ONNX domain that the model imports; 0 when it imports none."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


@lru_cache(maxsize=1 << 10)
def schema(op_type: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    """The definition of an operator in a version of its domain, or None."""
    if not onnx.defs.has(op_type, version, domain):
        return None
    return onnx.defs.get_schema(op_type, version, domain)


def infer_types(model: onnx.ModelProto) -> dict[str, TensorType]:
    """Types of all tensors of a model, those in the bodies of If, Loop and Scan included.

    What onnx infers from the inputs and the operators comes first. Types that the file declares
    (value_info, graph outputs) fill the gaps, and are the starting point behind operators that
    onnx cannot type. Declared shapes go stale when a model is edited: when one of them contradicts
    what was inferred, no declared shape of that model is used.

    A name that sibling bodies use for tensors of different types is unknown: `TensorType()`.
    """
    declared: dict[str, TensorType] = {}
    clashes: set[str] = set()
    facts = _facts(_undeclared(model, declared, clashes, trusted=True), clashes)
    if any(_contradicts(facts.get(name, _UNKNOWN), kind) for name, kind in declared.items()):
        facts = _facts(_undeclared(model, declared, clashes, trusted=False), clashes)
        declared = {name: TensorType(kind.elem_type) for name, kind in declared.items()}
    for name, kind in declared.items():
        facts[name] = _filled(facts.get(name, _UNKNOWN), kind, numbers=False)
    facts.update(dict.fromkeys(clashes, _UNKNOWN))
    return facts


def _facts(skeleton: onnx.ModelProto, clashes: set[str]) -> dict[str, TensorType]:
    """What onnx infers; the types of inputs and initializers alone when it gives up."""
    facts: dict[str, TensorType] = {}
    more: dict[str, TensorType] = {}
    try:
        forget_unsteady_states(skeleton)
        _collect(onnx.shape_inference.infer_shapes(skeleton).graph, facts, clashes)
        if _computes_shapes(skeleton.graph, facts):
            _cut_values(skeleton.graph, facts)
            inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
            _collect(inferred.graph, more, clashes)
    except onnx.shape_inference.InferenceError:
        if not facts:
            _collect(skeleton.graph, facts, clashes)
    for name, kind in more.items():
        if not name.startswith(_CUT):
            facts[name] = _filled(facts.get(name, _UNKNOWN), kind, numbers=True)
    return facts


def _computes_shapes(graph: onnx.GraphProto, facts: dict[str, TensorType]) -> bool:
    """True when some shape is still unknown and there are integers that it may depend on."""
    if not any(kind.shape is None or any(map(_is_open, kind.shape)) for kind in facts.values()):
        return False
    made = (name for node in graph.node if node.op_type != "Constant" for name in node.output)
    return any(facts.get(name, _UNKNOWN).elem_type in _INTEGERS for name in made)


def _cut_values(graph: onnx.GraphProto, facts: dict[str, TensorType]) -> None:
    """Puts unknown values in place of some that onnx follows, element by element.

    Of vectors that may be long, which takes time; of what a Cast makes that may not hold an
    integer, which onnx takes for the same number; and of integers in rows and columns, which it
    takes for one row.
    """
    cut: set[str] = set()
    cast = {n for node in graph.node if _is_lossy(node) for n in node.output if n in facts}
    for name in [n for node in graph.node for n in node.output] + [
        t.name for t in graph.initializer
    ]:
        kind = facts.get(name, _UNKNOWN)
        shape = kind.shape or ()
        is_long = len(shape) == 1 and not (isinstance(shape[0], int) and shape[0] <= _LONGEST)
        if is_long or (len(shape) > 1 and kind.elem_type in _INTEGERS):
            cut.add(name)
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name in cut or name in cast:
                node.output[index] = _CUT + name
        for body in bodies(node):
            _cut_values(body, facts)
    _drop(graph.initializer, cut)
    for name in sorted(cut | cast):
        fact = facts[name]
        dims = (None,) if name in cut and fact.rank == 1 else fact.shape
        graph.value_info.append(onnx.helper.make_tensor_value_info(name, fact.elem_type, dims))
    for info in graph.input:
        dims = info.type.tensor_type.shape.dim
        if len(dims) == 1 and dims[0].dim_value > _LONGEST:
            dims[0].Clear()


def _is_lossy(node: onnx.NodeProto) -> bool:
    """True for a Cast to a type that does not hold every size."""
    return operator(node) == "Cast" and getattr(attributes(node).get("to"), "i", 0) not in _HOLDING


def _is_typed(op_type: str, version: int, domain: str) -> bool:
    """True when onnx can tell the types of an operator's outputs."""
    found = schema(op_type, version, domain)
    rules = ("has_type_and_shape_inference_function", "has_function")
    return any(getattr(found, rule, False) for rule in rules)


def _undeclared(
    model: onnx.ModelProto, declared: dict[str, TensorType], clashes: set[str], trusted: bool
) -> onnx.ModelProto:
    """A hollow copy of the model that declares, if `trusted`, only what onnx cannot infer.

    What was declared goes to `declared`, names with several types to `clashes`. An initializer that
    is also an input becomes one of them: from IR version 4 on it is a default value, which says
    nothing about the run; before that it is the weight itself.
    """
    copy = hollow(model)
    versions = {o.domain: o.version for o in model.opset_import}
    versions[""] = versions["ai.onnx"] = default_opset(model)
    functions = {(f.domain, f.name) for f in model.functions}

    def clear(graph: onnx.GraphProto) -> None:
        local: dict[str, TensorType] = {}
        kept: dict[str, onnx.ValueInfoProto | None] = {}
        for node in graph.node:
            if node.domain not in versions or node.op_type in _FATAL:
                node.domain = ASIDE
            domain = "" if node.domain == "ai.onnx" else node.domain
            typed = _is_typed(node.op_type, versions.get(domain, 1), domain)
            if trusted and not typed and (node.domain, node.op_type) not in functions:
                kept.update(dict.fromkeys(node.output))
            for body in bodies(node):
                clear(body)
        for info in (*graph.output, *graph.value_info):
            if (kind := _kind(info.type.SerializeToString())) != _UNKNOWN:
                local[info.name] = kind
                if info.name in kept:
                    kept[info.name] = onnx.ValueInfoProto(name=info.name, type=info.type)
        for info in (*graph.input, *filter(None, kept.values())):
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_value < 0:  # means "any" to some exporters, and -1 to onnx
                    dim.Clear()
        _merge(local, declared, clashes)
        del graph.value_info[:]
        graph.value_info.extend(info for info in kept.values() if info is not None)
        for info in graph.output:
            info.ClearField("type")
        both = {t.name for t in graph.initializer} & {info.name for info in graph.input}
        _drop(graph.input if model.ir_version < 4 else graph.initializer, both)

    clear(copy.graph)
    for function in copy.functions:
        for node in function.node:
            if node.op_type in _FATAL:
                node.domain = ASIDE
        function.opset_import.append(onnx.helper.make_opsetid(ASIDE, 1))
    infer_pools_as_run(copy)
    copy.ir_version = max(copy.ir_version, 4)
    copy.opset_import.append(onnx.helper.make_opsetid(ASIDE, 1))
    return copy


def _drop(messages: Any, names: set[str]) -> None:
    for index in reversed(range(len(messages)) if names else ()):
        if messages[index].name in names:
            del messages[index]


def _collect(graph: onnx.GraphProto, types: dict[str, TensorType], clashes: set[str]) -> None:
    local: dict[str, TensorType] = {}
    for tensor in graph.initializer:
        local[tensor.name] = TensorType(tensor.data_type, tuple(tensor.dims))
    for info in (*graph.input, *graph.value_info, *graph.output):
        if local.get(info.name, _UNKNOWN) == _UNKNOWN:
            local[info.name] = _kind(info.type.SerializeToString())
    _merge(local, types, clashes)
    for node in graph.node:
        for body in bodies(node):
            _collect(body, types, clashes)


def _merge(local: dict[str, TensorType], types: dict[str, TensorType], clashes: set[str]) -> None:
    """Adds one graph's types to those of the model; notes the names that have two meanings."""
    for name, kind in local.items():
        if types.setdefault(name, kind) != kind:
            clashes.add(name)


@lru_cache(maxsize=1 << 12)
def _kind(type_bytes: bytes) -> TensorType:
    """The type in a serialized TypeProto, negative dimensions made unknown."""
    info = onnx.ValueInfoProto()
    info.type.ParseFromString(type_bytes)
    kind = TensorType.of(info)
    dims = (None if isinstance(dim, int) and dim < 0 else dim for dim in kind.shape or ())
    return kind if kind.shape is None else TensorType(kind.elem_type, tuple(dims))


def _is_open(dim: Dim) -> bool:
    return dim is None or (isinstance(dim, str) and dim.startswith(_GENERATED))


def _contradicts(fact: TensorType, declared: TensorType) -> bool:
    """True when both cannot hold; a named dimension declared as a number counts as stale."""
    if fact == declared:
        return False
    if fact.elem_type and declared.elem_type not in (0, fact.elem_type):
        return True
    if fact.shape is None or declared.shape is None:
        return False
    return len(fact.shape) != len(declared.shape) or any(
        isinstance(b, int) and not _is_open(a) and a != b
        for a, b in zip(fact.shape, declared.shape, strict=True)
    )


def _filled(fact: TensorType, other: TensorType, *, numbers: bool) -> TensorType:
    """The fact, with what another source knows of what it leaves open.

    A number is taken when `numbers` says so: in a declaration of the file's it may be stale.
    """
    if fact == other:
        return fact
    elem_type = fact.elem_type or other.elem_type
    if fact.shape is None or other.shape is None:
        return TensorType(elem_type, other.shape if fact.shape is None else fact.shape)
    if len(fact.shape) != len(other.shape):
        return TensorType(elem_type, fact.shape)
    pairs = zip(fact.shape, other.shape, strict=True)
    dims = (
        b if _is_open(a) and not _is_open(b) and (numbers or isinstance(b, str)) else a
        for a, b in pairs
    )
    return TensorType(elem_type, tuple(dims))
