"""Growing a random model, operator by operator: what images and matrices have in common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.lift.random_settings import Setting, SharingBuilder

MANY = np.iinfo(np.int64).max
MORE = ("conditional", "loop", "quantized", "quantized_layer", "quantized_layer")


class Grower:
    """Adds operators to a model; `shapes` holds every tensor's shape for the sizes at hand."""

    def __init__(self, draw: Callable, rank: int, setting: Setting) -> None:
        self.draw, self.rank, self.setting = draw, rank, setting
        seed = draw(st.integers(0, 2**16))
        self.b = SharingBuilder(setting, seed)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.inside = False
        shape = self.first_shape()
        names = [f"d{axis}" for axis in range(len(shape))]
        known = [axis == self.axis or draw(st.booleans()) for axis in range(len(shape))]
        if draw(st.booleans()):
            known = [axis in (self.axis,) for axis in range(len(shape))]
        dims = [d if k else n for d, k, n in zip(shape, known, names, strict=True)]
        self.sizes = {n: d for n, d, k in zip(names, shape, known, strict=True) if not k}
        self.shapes[self.b.input(*dims)] = shape

    axis = 1

    def first_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    kinds: tuple[str, ...] = ()

    def one_of(self, *values: object) -> object:
        return self.draw(st.sampled_from(values))

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def pick(self) -> str:
        """A tensor, a late one more often."""
        names = list(self.shapes)
        return names[max(-len(names), -1 - self.number(0, 2))]

    def put(self, op_type: str, *inputs: str, shape: tuple[int, ...], **attributes: object) -> str:
        name = self.b.op(op_type, *inputs, **attributes)
        self.shapes[name] = shape
        return name

    def step(self) -> None:
        more = () if self.inside or not self.setting.everything else MORE
        getattr(self, "add_" + str(self.one_of(*self.kinds, *more)))(self.pick())

    def model(self) -> tuple[onnx.ModelProto, dict[str, int]]:
        read = {name for node in self.b.nodes for name in node.input}
        made = [name for node in self.b.nodes for name in node.output if name in self.shapes]
        outputs = [name for name in made if name not in read]
        for name in made:
            if name in read and self.number(0, 9) == 0:
                outputs.append(name)
        model = self.b.model(*outputs)
        for output in model.graph.output:
            if not output.type.tensor_type.HasField("shape"):  # onnx infers nothing there
                rank = len(self.shapes[output.name])
                output.CopyFrom(
                    helper.make_tensor_value_info(output.name, self.b.elem_type, [None] * rank)
                )
        return model, dict(self.sizes)

    def channels(self, x: str) -> int:
        return self.shapes[x][self.axis]

    def with_channels(self, x: str, count: int) -> tuple[int, ...]:
        shape = list(self.shapes[x])
        shape[self.axis] = count
        return tuple(shape)

    # Operators that take any rank --------------------------------------------------------------

    def add_constant(self, x: str) -> None:
        shape = self.shapes[x]
        after = len(shape) - self.axis - 1
        if self.sizes:
            per_axis = [(shape[self.axis], *(1,) * after)]
        else:
            per_axis = [shape[k:] for k in range(len(shape))]
            per_axis.append((shape[self.axis], *(1,) * after))
        choices = [(), (1,), (1,) * len(shape), *per_axis, *per_axis[-1:] * 4]
        constant = self.b.random(*self.one_of(*choices))
        op = str(self.one_of("Add", "Sub", "Mul", "Div"))
        left = op != "Div" and self.draw(st.booleans())
        self.put(op, *((constant, x) if left else (x, constant)), shape=shape)

    def add_negation(self, x: str) -> None:
        self.put("Neg", x, shape=self.shapes[x])

    def add_passing(self, x: str) -> None:
        op, more, given = str(self.one_of("Identity", "Dropout")), [], {}
        if op == "Dropout" and self.draw(st.booleans()):
            if self.b.opset < 12:
                given["ratio"] = 0.4
            else:
                training = self.b.constant(np.asarray(False), elem_type=TensorProto.BOOL)
                more = [self.b.constant(0.4), training]
        self.put(op, x, *more, shape=self.shapes[x], **given)

    def add_opaque(self, x: str) -> None:
        self.put(str(self.one_of("Relu", "Sigmoid")), x, shape=self.shapes[x])

    def add_sum(self, x: str) -> None:
        alike = [n for n, shape in self.shapes.items() if shape == self.shapes[x]]
        if alike == [x]:
            alike.append(self.alike(x))
        op = str(self.one_of("Add", "Sub", "Sum", "Mean"))
        others = [str(self.one_of(*alike)) for _ in range(self.number(1, 2))]
        inputs = [x, *others][: None if op in ("Sum", "Mean") else 2]
        self.put(op, *inputs, shape=self.shapes[x])

    def alike(self, x: str) -> str:
        raise NotImplementedError

    def add_concat(self, x: str) -> None:
        base = self.with_channels(x, 0)
        alike = [n for n in self.shapes if self.with_channels(n, 0) == base]
        inputs = [x, *(str(self.one_of(*alike)) for _ in range(self.number(1, 2)))]
        total = sum(self.channels(n) for n in inputs)
        if total <= 12:
            self.put("Concat", *inputs, shape=self.with_channels(x, total), axis=self.axis)

    def add_split(self, x: str) -> None:
        total = self.channels(x)
        if total < 2:
            return
        first = self.number(1, total - 1)
        sizes = [first, total - first]
        axis = self.axis
        if total % 2 == 0 and self.draw(st.booleans()):
            given = {"num_outputs": 2} if self.b.opset >= 18 else {}
            names = self.b.ops("Split", x, outputs=2, axis=axis, **given)
            sizes = [total // 2] * 2
        elif self.b.opset < 13:
            names = self.b.ops("Split", x, outputs=2, axis=axis, split=sizes)
        else:
            names = self.b.ops("Split", x, self.b.constant(sizes), outputs=2, axis=axis)
        for name, size in zip(names, sizes, strict=True):
            self.shapes[name] = self.with_channels(x, size)

    def add_gather(self, x: str) -> None:
        total = self.channels(x)
        lowest = -total if self.b.opset >= 11 else 0
        order = [self.number(lowest, total - 1) for _ in range(self.number(1, 6))]
        indices = self.b.constant(order)
        shape = self.with_channels(x, len(order))
        self.put("Gather", x, indices, shape=shape, axis=self.axis)

    def add_channel_slice(self, x: str) -> None:
        total = self.channels(x)
        start, end = self.number(0, total - 1), self.number(1, total + 2)
        step = self.number(1, 2) if self.b.opset >= 10 else 1
        kept = len(range(total)[start:end:step])
        if kept:
            shape = self.with_channels(x, kept)
            self.cut(x, [self.axis], [start], [end], [step], shape)

    def cut(
        self,
        x: str,
        axes: list[int],
        starts: list[int],
        ends: list[int],
        steps: list[int],
        shape: tuple[int, ...],
    ) -> None:
        if self.b.opset < 10:
            self.put("Slice", x, shape=shape, axes=axes, starts=starts, ends=ends)
        else:
            left_out = set(steps) == {1} and self.draw(st.booleans())
            values = (starts, ends, axes) if left_out else (starts, ends, axes, steps)
            kind = int(self.one_of(TensorProto.INT64, TensorProto.INT64, TensorProto.INT32))
            most = np.iinfo(helper.tensor_dtype_to_np_dtype(kind)).max
            bounds = [self.b.constant(np.minimum(v, most), elem_type=kind) for v in values]
            self.put("Slice", x, *bounds, shape=shape)

    # Bodies and quantization -------------------------------------------------------------------

    def add_conditional(self, x: str) -> None:
        flag = "flag"
        if all(info.name != flag for info in self.b.inputs):
            self.b.input(name=flag, elem_type=TensorProto.BOOL)
        branches = {f"{side}_branch": self.body(x, x, side, []) for side in ("then", "else")}
        self.put("If", flag, shape=self.shapes[x], **branches)

    def add_loop(self, x: str) -> None:
        rounds = self.b.constant(self.number(0, 2))
        go = self.b.constant(np.asarray(True), elem_type=TensorProto.BOOL)
        state = self.b.unused("state")
        given = [
            helper.make_tensor_value_info(self.b.unused("i"), TensorProto.INT64, []),
            helper.make_tensor_value_info(self.b.unused("go"), TensorProto.BOOL, []),
            helper.make_tensor_value_info(state, self.b.elem_type, self.declared(x)),
        ]
        body = self.body(x, state, "round", given)
        self.put("Loop", rounds, go, x, shape=self.shapes[x], body=body)

    def declared(self, x: str) -> list[int | None]:
        """A shape of which only the channels are sure."""
        known = self.draw(st.booleans()) and not self.sizes
        return [d if known or axis == self.axis else None for axis, d in enumerate(self.shapes[x])]

    def body(
        self, x: str, first: str, role: str, given: list[onnx.ValueInfoProto]
    ) -> onnx.GraphProto:
        """A few operators that keep the shape of x; they read tensors from outside too."""
        declared = self.declared(x)
        outer_nodes, outer_weights, outer_shapes = self.b.nodes, self.b.initializers, self.shapes
        self.b.nodes, self.b.initializers = [], []
        self.b.enclosing.append(outer_weights)
        self.shapes = {first: outer_shapes[x]}
        if self.draw(st.booleans()):
            alike = [n for n, shape in outer_shapes.items() if shape == outer_shapes[x]]
            self.shapes = {str(self.one_of(*alike)): outer_shapes[x], **self.shapes}
        self.inside = True
        for _ in range(self.number(0, 3)):
            kind = str(self.one_of("norm", "constant", "sum", "negation", "opaque"))
            getattr(self, "add_" + kind)(self.pick())
        last = self.alike(list(self.shapes)[-1])
        goes_on = [self.b.op("Identity", given[1].name)] if given else []
        outputs = [helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in goes_on]
        outputs.append(helper.make_tensor_value_info(last, self.b.elem_type, declared))
        weights = self.b.initializers
        graph = helper.make_graph(self.b.nodes, role, given, outputs, weights)
        self.b.nodes, self.b.initializers, self.shapes = outer_nodes, outer_weights, outer_shapes
        self.b.enclosing.pop()
        self.inside = False
        return graph

    def add_quantized(self, x: str) -> None:
        """QuantizeLinear -> DequantizeLinear of a tensor."""
        if not self.setting.quantizes:
            return
        scale = self.b.constant(float(self.one_of(0.05, 0.5)))
        zero = self.b.constant(np.asarray(self.number(0, 128)), elem_type=TensorProto.UINT8)
        codes = self.b.op("QuantizeLinear", x, scale, zero)
        self.put("DequantizeLinear", codes, scale, zero, shape=self.shapes[x])

    def dequantized(self, *shape: int) -> str:
        """A weight in 8 bits."""
        codes = self.b.constant(self.b.rng.integers(-90, 91, shape), elem_type=TensorProto.INT8)
        per_axis = self.b.opset >= 13 and self.draw(st.booleans())
        scales = self.b.rng.uniform(0.005, 0.015, shape[:1] if per_axis else ())
        zeros = np.zeros(scales.shape, np.int8)
        scale, zero = self.b.constant(scales), self.b.constant(zeros, elem_type=TensorProto.INT8)
        given = {"axis": 0} if per_axis else {}
        return self.b.op("DequantizeLinear", codes, scale, zero, **given)
