"""An index over a GraphProto: who makes a tensor, who reads it, what is constant; and edits on it.

The protobuf messages stay the single representation, so whatever an edit does not touch (doc
strings, metadata, attribute types this package has never heard of) is written back as it was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxfuse.messages import (
    all_names,
    bodies,
    detached,
    has_effects,
    names_read,
    renamed,
)

FLOAT_TYPES = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    }
)
_CACHED_BYTES = 1 << 16

Array = NDArray[np.generic]
Dim = int | str | None
TensorLoader = Callable[[onnx.TensorProto], Array]


@dataclass(frozen=True)
class TensorType:
    """What is known of a tensor: `elem_type` as in TensorProto (0: unknown), `shape` or None.

    A dimension is an int, a symbol, or None where nothing is known.
    """

    elem_type: int = 0
    shape: tuple[Dim, ...] | None = None

    @property
    def rank(self) -> int | None:
        """Number of dimensions, or None."""
        return None if self.shape is None else len(self.shape)

    @staticmethod
    def of(info: onnx.ValueInfoProto) -> TensorType:
        """The type that a ValueInfoProto declares; unknown for anything but a dense tensor."""
        if not info.type.HasField("tensor_type"):
            return TensorType()
        tensor = info.type.tensor_type
        if not tensor.HasField("shape"):
            return TensorType(tensor.elem_type)
        return TensorType(tensor.elem_type, tuple(_dim(d) for d in tensor.shape.dim))


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return dim.dim_param or None


@dataclass
class Graph:
    """One GraphProto with its indexes. Edits are collected and reach the proto in `commit`.

    Attributes:
        proto: The graph message; changed by `commit` alone.
        opset: Version of the default ONNX domain.
        ir_version: The model's IR version.
        load: Reads a TensorProto into an array (external data resolved).
        outer: The graph around a body, or None.
        types: Tensor types by name, as declared and inferred.
        keep: Tensors that have to stay under their names, besides the outputs.
        reserved: Names that new tensors do not get, whether anything has them now or not.
    """

    proto: onnx.GraphProto
    opset: int
    ir_version: int
    load: TensorLoader = numpy_helper.to_array
    outer: Graph | None = None
    types: Mapping[str, TensorType] = field(default_factory=dict)
    keep: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = list(self.proto.node)
        self.inputs: tuple[str, ...] = tuple(i.name for i in self.proto.input)
        self.outputs: tuple[str, ...] = tuple(o.name for o in self.proto.output)
        self._given = frozenset(self.inputs)
        self._initializers = {t.name: t for t in self.proto.initializer}
        self._new: dict[str, Array] = {}
        self._replacements: dict[str, Sequence[onnx.NodeProto]] = {}
        self._aliases: dict[str, str] = {}
        self._renames: dict[str, str] = {}
        self._removed: set[int] = set()
        self._cache: dict[str, Array] = {}
        self.overridable = (
            self._given & self._initializers.keys() if self.ir_version >= 4 else set()
        )
        self.producers: dict[str, int] = {}
        self.consumers: dict[str, list[int]] = {}
        self.reads: list[tuple[str, ...]] = []
        self.captured: set[str] = set()
        for index, node in enumerate(self.nodes):
            captured = [name for body in bodies(node) for name in names_read(body)]
            self.captured.update(captured)
            read = tuple(dict.fromkeys(n for n in (*node.input, *captured) if n))
            self.reads.append(read)
            for name in read:
                self.consumers.setdefault(name, []).append(index)
            for name in node.output:
                if name:
                    self.producers[name] = index
        self._names: set[str] | None = None

    # Constants ---------------------------------------------------------------------------------

    @property
    def takes_initializers(self) -> bool:
        """False for bodies before IR version 4, when initializers had to be inputs."""
        return self.outer is None or self.ir_version >= 4

    def is_constant(self, name: str) -> bool:
        """True when the tensor's value is fixed: an initializer nobody can override."""
        if name in self._new:
            return True
        if name in self._initializers:
            return name not in self.overridable
        if name in self.producers or name in self._given:
            return False
        return self.outer is not None and self.outer.is_constant(name)

    def constant(self, name: str) -> Array | None:
        """The value of a constant tensor, or None when it is not constant."""
        if not self.is_constant(name):
            return None
        if name in self._new:
            return self._new[name]
        if name in self._cache:
            return self._cache[name]
        tensor = self._initializers.get(name)
        if tensor is None:
            return None if self.outer is None else self.outer.constant(name)
        value = self.load(tensor)
        if value.nbytes <= _CACHED_BYTES:
            self._cache[name] = value
        return value

    def constant_shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a constant tensor without loading it, or None when it is not constant."""
        if not self.is_constant(name):
            return None
        if name in self._new:
            return self._new[name].shape
        tensor = self._initializers.get(name)
        if tensor is None:
            return None if self.outer is None else self.outer.constant_shape(name)
        return tuple(tensor.dims)

    def constant_type(self, name: str) -> int:
        """Element type of a constant tensor (TensorProto.DataType); 0 when it is not constant."""
        if not self.is_constant(name):
            return 0
        if name in self._new:
            return int(onnx.helper.np_dtype_to_tensor_dtype(self._new[name].dtype))
        tensor = self._initializers.get(name)
        if tensor is None:
            return 0 if self.outer is None else self.outer.constant_type(name)
        return int(tensor.data_type)

    def type(self, name: str) -> TensorType:
        """What is known of the tensor's type; looks outward for captured tensors."""
        if self.is_constant(name):
            return TensorType(self.constant_type(name), self.constant_shape(name))
        known = self.types.get(name)
        if known is None:
            return TensorType() if self.outer is None else self.outer.type(name)
        return known

    def data(self, index: int) -> tuple[str, ...]:
        """What the node at `index` computes on: inputs that are neither constant nor integer."""
        return tuple(
            name
            for name in self.reads[index]
            if not self.is_constant(name) and self.type(name).elem_type in (0, *FLOAT_TYPES)
        )

    def is_pinned(self, name: str) -> bool:
        """True for a tensor that has to be there whatever the nodes read."""
        return name in self.outputs or name in self.captured or name in self.keep

    def only_reader(self, name: str) -> int | None:
        """The node, by index, for which alone a tensor is there; None where others need it."""
        if self.is_pinned(name):
            return None
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 else None

    # Edits -------------------------------------------------------------------------------------

    def unique_name(self, base: str) -> str:
        """A tensor or node name that nothing in this graph, or around it, uses; and reserves it."""
        root = self
        while root.outer is not None:
            root = root.outer
        if root._names is None:
            root._names = {*root.reserved, *all_names(root.proto)}
        name, count = base, 1
        while name in root._names:
            name, count = f"{base}_{count}", count + 1
        root._names.add(name)
        return name

    def add_constant(self, name: str, value: Array) -> None:
        """Adds an initializer, in place of whatever node made the name so far."""
        self._new[name] = value

    def remove(self, index: int) -> None:
        """Removes the node at `index` of `nodes`."""
        self._removed.add(index)

    def replace(self, target: str, nodes: Sequence[onnx.NodeProto]) -> None:
        """Lets `nodes` make the tensor `target` from now on, in place of the node that made it."""
        self._replacements[target] = nodes

    def can_alias(self, target: str, source: str) -> bool:
        """True when readers of `target` can read `source`, or a graph output's name can move."""
        if target in self.captured or target in self.keep:
            return False
        root = self._root(source)
        return target not in self.outputs or (
            root in self.producers
            and root not in self._renames
            and not any(root in pinned for pinned in (self.outputs, self.captured, self.keep))
        )

    def alias(self, target: str, source: str) -> None:
        """Lets everyone who reads `target` read `source`; only where `can_alias` says so."""
        self._aliases[target] = root = self._root(source)
        if target in self.outputs:
            self._renames[root] = target

    def _root(self, name: str) -> str:
        while name in self._aliases:
            name = self._aliases[name]
        return name

    def has_dead_nodes(self) -> bool:
        """True when nobody reads any output of some node."""
        pinned = {*self.outputs, *self.keep, *self.consumers}
        return any(pinned.isdisjoint(n.output) and not has_effects(n) for n in self.nodes)

    def commit(self, *, prune: bool = False) -> bool:
        """Writes the edits to the proto, drops what nobody reads any more, and reindexes.

        Args:
            prune: Drop what nobody reads even when there are no edits.

        Returns:
            False when there was nothing to write.
        """
        if not prune and not (self._new or self._replacements or self._aliases or self._removed):
            return False
        alive, made = self._alive()
        roots = {target: self._root(target) for target in self._aliases}
        names = {target: self._renames.get(root, root) for target, root in roots.items()}
        names.update(self._renames)
        nodes: list[onnx.NodeProto] = []
        for index, node in enumerate(self.nodes):
            for output in node.output:
                if output in made:
                    nodes.extend(renamed(new, names) for new in self._replacements[output])
            if index in alive:
                moved = [o for o in node.output if o in self._replacements or o in self._aliases]
                taken = {name: self.unique_name(name) for name in moved}
                nodes.append(renamed(node, names, taken))
        del self.proto.node[:]
        self.proto.node.extend(nodes)
        read = set(names_read(self.proto))
        read.update(self._quantization_parameters())
        dead = [
            index
            for index, tensor in enumerate(self.proto.initializer)
            if tensor.name in self._new
            or not any(tensor.name in names for names in (read, self.overridable, self.keep))
        ]
        gone = {self.proto.initializer[index].name for index in dead} - self._new.keys()
        for index in reversed(dead):
            del self.proto.initializer[index]
        while self._new:
            name, value = self._new.popitem()
            if name in read:
                self._write_initializer(name, value)
        self._drop_declarations(gone)
        self.__post_init__()
        return True

    def _alive(self) -> tuple[set[int], set[str]]:
        """The nodes that an output of the graph depends on, and the replacements that it uses."""
        alive = {index for index, node in enumerate(self.nodes) if has_effects(node)}
        made: set[str] = set()
        pending = [*self.outputs, *self.keep, *(n for index in alive for n in self.reads[index])]
        while pending:
            name = self._root(pending.pop())
            if name in self._new or name in made:
                continue
            if name in self._replacements:
                made.add(name)
                pending.extend(i for node in self._replacements[name] for i in node.input if i)
                continue
            index = self.producers.get(name)
            if index is not None and index not in alive and index not in self._removed:
                alive.add(index)
                pending.extend(self.reads[index])
        return alive, made

    def _quantization_parameters(self) -> Iterator[str]:
        for annotation in self.proto.quantization_annotation:
            yield from (entry.value for entry in annotation.quant_parameter_tensor_names)

    def _write_initializer(self, name: str, value: Array) -> None:
        self.proto.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        if self.ir_version < 4 and self.outer is None and name not in self._given:
            dtype = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
            self.proto.input.append(onnx.helper.make_tensor_value_info(name, dtype, value.shape))

    def _drop_declarations(self, gone: set[str]) -> None:
        """Forgets inputs (IR version 3) and value_info of tensors that are no longer there."""
        if self.ir_version < 4:
            for index in reversed(range(len(self.proto.input))):
                if self.proto.input[index].name in gone:
                    del self.proto.input[index]
        if not self.proto.value_info and not self.proto.quantization_annotation:
            return
        alive = {name for node in self.proto.node for name in node.output}
        alive.update(tensor.name for tensor in self.proto.initializer)
        kept = [detached(info) for info in self.proto.value_info if info.name in alive]
        if len(kept) < len(self.proto.value_info):
            del self.proto.value_info[:]
            self.proto.value_info.extend(kept)
