"""Makes the nodes that are left of channels: weights, constants and biases cut to size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxfuse.graph import Array, Graph, TensorType
from onnxfuse.messages import renamed
from onnxfuse.rewrites.channel_needs import Mask, Plan, Removal
from onnxfuse.rewrites.channel_nodes import Layer

_SUFFIX = "/kept"


class Cut(NamedTuple):
    """What is left of a tensor: its new name, and the channels."""

    name: str
    kept: Mask


Cuts = Mapping[str, Cut]


@dataclass
class Maker:
    """Makes nodes anew, given what is left of the tensors around them.

    Attributes:
        graph: The graph; constants are added to it, and the types of new tensors.
        plan: What its nodes do with channels.
        exact: Constants that were rounded to the model's type, in float64.
        absorbed: By node, how large the numbers are that its bias takes in.
        left: By tensor that lost some, how many channels it has.
    """

    graph: Graph
    plan: Plan
    exact: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    absorbed: dict[int, float] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    _made: dict[tuple[object, ...], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.graph.types = self._types = dict(self.graph.types)

    def cuts(self, removal: Removal) -> dict[str, Cut]:
        """New names for the tensors of a removal."""
        found: dict[str, Cut] = {}
        for name, kept in removal.kept.items():
            new = self.graph.unique_name(f"{name.removesuffix(_SUFFIX)}{_SUFFIX}")
            found[name] = Cut(new, kept)
            self.left[new] = int(kept.sum())
            kind, axis = self.graph.type(name), self.plan.spans[name].axis
            shape = None if kind.shape is None else list(kind.shape)
            if shape is not None:
                shape[axis] = int(kept.sum())
            self._types[new] = TensorType(kind.elem_type, None if shape is None else tuple(shape))
        return found

    def nodes(self, index: int, cuts: Cuts) -> list[onnx.NodeProto]:
        """A node as it is with what is left of the tensors around it; two where it gets a bias."""
        role = self.plan.roles[index]
        old = self.graph.nodes[index]
        around = [name for name in (*old.input, *old.output) if name in cuts]
        node = renamed(old, {name: cuts[name].name for name in around})
        if isinstance(role, Layer):
            return self._layer(index, node, role, cuts)
        kept = cuts[role.y].kept if role.y in cuts else None
        for position, axis in role.cuts if kept is not None else ():
            node.input[position] = self._taken(node.input[position], (axis, kept))
        if node.op_type == "Conv" and role.inputs[0] in cuts:
            groups = int(cuts[role.inputs[0]].kept.sum())
            for attribute in node.attribute:
                if attribute.name == "group":
                    attribute.i = groups
        return [node]

    def _layer(
        self, index: int, node: onnx.NodeProto, layer: Layer, cuts: Cuts
    ) -> list[onnx.NodeProto]:
        rows = cuts[layer.y].kept if layer.y in cuts else None
        columns = cuts[layer.x].kept if layer.x in cuts else None
        ways = [(layer.rows, rows), (layer.columns, columns)]
        weight = np.asarray(self.graph.constant(layer.weight))
        node.input[1] = self._taken(layer.weight, *ways)
        shift = None if columns is None else self._shift(index, layer, weight, columns)
        if shift is None:
            if layer.bias and rows is not None:
                node.input[2] = self._taken(layer.bias, (-1, rows))
            return [node]
        old = self.graph.constant(layer.bias) if layer.bias else None
        bias = shift if old is None else shift + np.asarray(old).astype(np.float64)
        bias = bias if rows is None else bias[..., rows]
        key = (index, bias.tobytes())
        name = self._made.get(key) or self.graph.unique_name(f"{layer.y}/bias")
        self._made[key] = name
        self.exact[name] = bias
        with np.errstate(over="ignore"):
            self.graph.add_constant(name, bias.astype(weight.dtype))
        if node.op_type != "MatMul":
            del node.input[2:]
            node.input.append(name)
            return [node]
        product = self._made.setdefault((index,), self.graph.unique_name(f"{layer.y}/MatMul"))
        added = onnx.helper.make_node(
            "Add", [product, name], [node.output[0]], name=self.graph.unique_name(f"{layer.y}/Add")
        )
        node.output[0] = product
        return [node, added]

    def _shift(
        self, index: int, layer: Layer, weight: Array, columns: Mask
    ) -> NDArray[np.float64] | None:
        """What the constant channels that go add to each channel of y; None for nothing."""
        value = self.plan.values.get(layer.x)
        if value is None:
            return None
        gone = ~columns & np.isfinite(value) & (value != 0)
        wide = np.compress(gone, weight, axis=layer.columns).astype(np.float64)
        taps = tuple(axis for axis in range(wide.ndim) if axis not in (layer.rows, layer.columns))
        sums = wide.sum(axis=taps)  # over the kernel: two axes are left, in their order
        terms = (sums if layer.rows < layer.columns else sums.T) * value[gone]
        if not terms.any():
            return None
        self.absorbed[index] = float(np.abs(terms).sum(axis=1).max())
        return np.asarray(terms.sum(axis=1))

    def _taken(self, name: str, *ways: tuple[int, Mask | None]) -> str:
        """A constant with some entries along some axes; equal ones are made once."""
        cut = [(axis, kept) for axis, kept in ways if kept is not None and not kept.all()]
        shape = self.graph.constant_shape(name) or ()
        cut = [(axis, kept) for axis, kept in cut if shape and shape[axis] == len(kept)]
        if not cut:
            return name
        key = (name, *((axis, kept.tobytes()) for axis, kept in cut))
        if key not in self._made:
            value = np.asarray(self.graph.constant(name))
            for axis, kept in cut:
                value = np.compress(kept, value, axis=axis)
            self._made[key] = self.graph.unique_name(f"{name.removesuffix(_SUFFIX)}{_SUFFIX}")
            self.graph.add_constant(self._made[key], value)
        return self._made[key]


def put_in(
    graph: Graph, made: Mapping[int, Sequence[onnx.NodeProto]], cuts: Cuts, plan: Plan
) -> None:
    """Puts nodes in the place of others; the graph is changed, not committed.

    Tensors that lose channels have readers among the nodes alone. So these may be made together
    with the next tensor that keeps its channels, and its name.
    """
    waiting: list[onnx.NodeProto] = []
    for index in sorted(made):
        waiting += made[index]
        y = plan.roles[index].y
        if y not in cuts:
            graph.replace(y, waiting)
            waiting = []
