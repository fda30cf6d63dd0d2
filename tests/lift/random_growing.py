"""Growing a random model, operator by operator: what images and matrices have in common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.lift.random_settings import Setting, SharingBuilder

MANY = np.iinfo(np.int64).max


class Grower:
    """Adds operators to a model.

    Attributes:
        shapes: Every tensor's shape for the sizes at hand.
        stacked: The same for what loops collected, which no other operator takes.
        is_miscounted: Whether onnx infers another size for some tensor than runtimes make.
    """

    def __init__(self, draw: Callable, rank: int, setting: Setting) -> None:
        self.draw, self.rank, self.setting = draw, rank, setting
        seed = draw(st.integers(0, 2**16))
        self.b = SharingBuilder(setting, seed)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.stacked: dict[str, tuple[int, ...]] = {}
        self.is_miscounted = False
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

    def model(self) -> tuple[onnx.ModelProto, dict[str, int]]:
        read = {name for node in self.b.nodes for name in node.input}
        made = [name for node in self.b.nodes for name in node.output if name in self.shapes]
        outputs = [name for name in made if name not in read]
        for name in made:
            if name in read and self.number(0, 9) == 0:
                outputs.append(name)
        outputs += self.stacked
        shapes = {**self.shapes, **self.stacked}
        model = self.b.model(*outputs)
        for output in model.graph.output:
            if not output.type.tensor_type.HasField("shape"):  # onnx infers nothing there
                rank = len(shapes[output.name])
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
