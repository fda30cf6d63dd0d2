"""Checks of a model's versions, and of the names in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx
from onnx import TensorProto

from onnxfuse.errors import ModelError
from onnxfuse.hollow import payload_bytes
from onnxfuse.messages import bodies
from onnxfuse.shapes import default_opset

_ELEMENT_TYPES = frozenset(TensorProto.DataType.values())
_NEWEST_OF_ANY = (1 << 31) - 1  # what onnx can look up
_DEEPEST_CALLS = 90  # onnx follows a hundred
_MOST_CALLED = 1_000_000
_MOST_DIMS = 64  # of an array
_MOST_BYTES = (1 << 63) - 1
_Key = tuple[str, str, str]


def called(node: onnx.NodeProto) -> str:
    """What messages call a node."""
    return f"{node.op_type} '{node.name}'" if node.name else f"a {node.op_type} node"


def check_header(model: onnx.ModelProto, weights: Iterable[TensorProto], where: str) -> None:
    """Checks versions, and element types and dimensions of the model's tensors.

    Raises:
        ModelError: One line that begins with `where`.
    """
    opset, newest = default_opset(model), onnx.defs.onnx_opset_version()
    own = [imported for imported in model.opset_import if imported.domain in ("", "ai.onnx")]
    if not model.HasField("graph") or model.ir_version < 1:
        raise ModelError(f"{where}: not an ONNX model: it has no graph or no ir_version")
    if not model.opset_import:
        raise ModelError(f"{where}: no opset_import, so the operators' meaning is unknown")
    if opset > newest or model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"{where}: opset {opset}, IR version {model.ir_version}; the installed onnx "
            f"{onnx.__version__} knows up to opset {newest}, IR version {onnx.IR_VERSION}"
        )
    if len({imported.version for imported in own}) > 1:
        raise ModelError(f"{where}: imports several versions of ONNX's operators")
    for imported in model.opset_import:
        if not 0 <= imported.version <= _NEWEST_OF_ANY:
            raise ModelError(f"{where}: imports version {imported.version} of a domain")
    if model.functions:
        check_functions(model, where)
    if not opset and any(node.domain in ("", "ai.onnx") for node in model.graph.node):
        raise ModelError(f"{where}: uses ONNX operators but imports no version of them")
    for tensor in weights:
        if len(tensor.dims) > _MOST_DIMS or _span(tensor) > _MOST_BYTES:
            raise ModelError(f"{where}: tensor '{tensor.name}' is larger than any tensor can be")
        if tensor.data_type not in _ELEMENT_TYPES or min(tensor.dims, default=0) < 0:
            raise ModelError(
                f"{where}: tensor '{tensor.name}' has element type {tensor.data_type}, "
                f"dims {list(tensor.dims)}"
            )


def _span(tensor: TensorProto) -> int:
    """Bytes of the tensor; of one without elements, as if there were one along that axis."""
    bare = TensorProto(data_type=tensor.data_type, dims=[max(dim, 1) for dim in tensor.dims])
    return payload_bytes(bare)


def check_functions(model: onnx.ModelProto, where: str) -> None:
    """Checks that local functions are there once, and that a runtime can put them in their places.

    Raises:
        ModelError: One line that names the function.
    """
    calls: dict[_Key, Counter[_Key]] = {}
    for function in model.functions:
        key = (function.domain, function.name, function.overload)
        if key in calls:
            raise ModelError(f"{where}: two functions are named '{function.name}'")
        calls[key] = _calls(function)
    stands_for: dict[_Key, int] = {}
    left = dict(calls)
    for _ in range(_DEEPEST_CALLS):
        for key in [key for key, made in left.items() if made.keys().isdisjoint(left)]:
            made = left.pop(key)
            stands_for[key] = sum(count * stands_for.get(to, 1) for to, count in made.items())
    if left:
        name = next(iter(left))[1]
        raise ModelError(f"{where}: the function '{name}' calls itself, or too many in a row")
    total = sum(count * stands_for.get(to, 0) for to, count in _calls(model.graph).items())
    if total > _MOST_CALLED:
        raise ModelError(f"{where}: its functions stand for {total:,} nodes")


def _calls(carrier: onnx.GraphProto | onnx.FunctionProto) -> Counter[_Key]:
    """How often each operator is called in a graph or function, bodies included."""
    found: Counter[_Key] = Counter()
    pending = list(carrier.node)
    while pending:
        node = pending.pop()
        found[node.domain, node.op_type, node.overload] += 1
        pending.extend(inner for body in bodies(node) for inner in body.node)
    return found


def check_names(graph: onnx.GraphProto, where: str, scopes: tuple[set[str], ...] = ()) -> None:
    """Checks that each tensor is made once, before it is read, in a graph and its bodies.

    Args:
        graph: The graph, its nodes in order.
        where: What the messages begin with.
        scopes: Names in the graphs around it, innermost last.

    Raises:
        ModelError: One line that names the tensor and the node.
    """
    given = [value.name for value in graph.input]
    weights = [tensor.name for tensor in graph.initializer]
    weights += [tensor.values.name for tensor in graph.sparse_initializer]
    for kind, names in (("inputs", given), ("initializers", weights)):
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ModelError(f"{where}: two {kind} are named '{twice}'")
    made = {*given, *weights}
    texts: set[str | bytes] = set()
    for node in graph.node:
        if not made.issuperset(node.input):
            for name in filter(None, node.input):
                if name not in made and not any(name in scope for scope in scopes):
                    raise ModelError(f"{where}: {called(node)} reads '{name}', which nothing makes")
        for body in bodies(node):
            check_names(body, where, (*scopes, made))
        for name in filter(None, node.output):
            if name in made or (scopes and any(name in scope for scope in scopes)):
                raise ModelError(f"{where}: '{name}' is made twice, again by {called(node)}")
            made.add(name)
        texts.update((node.op_type, node.domain, node.name))
    for text in (*made, *texts):
        if isinstance(text, bytes):
            raise ModelError(f"{where}: the name {text!r} is not UTF-8")
    for output in graph.output:
        if output.name not in made and not any(output.name in scope for scope in scopes):
            raise ModelError(f"{where}: nothing makes the graph output '{output.name}'")
