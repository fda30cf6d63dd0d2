"""Random models out of every operator that lifts, as a hypothesis strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from tests.lift.building import Builder

OPSETS = (9, 11, 13, 17, 18, 21)
MANY = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Model:
    """A model and the sizes that its symbolic dimensions have in it."""

    proto: object
    sizes: dict[str, int]


@st.composite
def models(draw: Callable, most: int = 12) -> Model:
    """A model of at most `most` steps; a step is one operator, or a few that belong together."""
    image = draw(st.integers(0, 4)) > 0
    rank = draw(st.sampled_from([1, 2, 2, 2, 3])) if image else draw(st.integers(0, 2))
    grower = (_Image if image else _Matrix)(draw, rank)
    for _ in range(draw(st.integers(1, most))):
        grower.step()
    assume(grower.b.nodes)
    return grower.model()


class _Grower:
    """Adds operators to a model; `shapes` holds every tensor's shape for the sizes at hand."""

    def __init__(self, draw: Callable, rank: int) -> None:
        self.draw, self.rank = draw, rank
        seed = draw(st.integers(0, 2**16))
        self.b = Builder(draw(st.sampled_from(OPSETS)), seed=seed)
        self.shapes: dict[str, tuple[int, ...]] = {}
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
        getattr(self, "add_" + str(self.one_of(*self.kinds)))(self.pick())

    def model(self) -> Model:
        read = {name for node in self.b.nodes for name in node.input}
        made = [name for node in self.b.nodes for name in node.output if name in self.shapes]
        outputs = [name for name in made if name not in read]
        for name in made:
            if name in read and self.number(0, 9) == 0:
                outputs.append(name)
        return Model(self.b.model(*outputs), dict(self.sizes))

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
        self.put(str(self.one_of("Identity", "Dropout")), x, shape=self.shapes[x])

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
        if self.b.opset < 13:
            names = self.b.ops("Split", x, outputs=2, axis=axis, split=sizes)
        else:
            names = self.b.ops("Split", x, self.b.constant(sizes), outputs=2, axis=axis)
        for name, size in zip(names, sizes, strict=True):
            self.shapes[name] = self.with_channels(x, size)

    def add_gather(self, x: str) -> None:
        total = self.channels(x)
        order = [self.number(-total, total - 1) for _ in range(self.number(1, 6))]
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
            bounds = [self.b.constant(v) for v in (starts, ends, axes, steps)]
            self.put("Slice", x, *bounds, shape=shape)


class _Image(_Grower):
    """(N, C, *spatial) with Conv, BatchNormalization, pooling and padding."""

    kinds = (
        *("conv",) * 5,
        *("norm",) * 2,
        *("constant",) * 2,
        *("sum",) * 4,
        *("concat",) * 2,
        "negation",
        "passing",
        "opaque",
        "split",
        "gather",
        "channel_slice",
        "crop",
        "pad",
        "pool",
        "transposed",
        "shuffle",
    )

    def first_shape(self) -> tuple[int, ...]:
        spatial = (self.number(4, 9 if self.rank < 3 else 6) for _ in range(self.rank))
        return (self.number(1, 2), self.number(1, 4), *spatial)

    def window(self, x: str, kernel: list[int], small: bool = False) -> dict[str, list[int]] | None:
        """Attributes of a window that fits, and in "sizes" what comes out."""
        rank, size = self.rank, self.shapes[x][2:]
        strides = [self.number(1, 2) for _ in range(rank)] if self.number(0, 2) == 0 else [1] * rank
        dilations = [1] * rank
        if not small and self.number(0, 3) == 0:
            dilations = [self.number(1, 2) for _ in range(rank)]
        pads = [k // 2 * d for k, d in zip(kernel, dilations, strict=True)] * 2
        if self.number(0, 2) == 0:
            pads = [self.number(0, k - 1 if small else 2) for k in kernel * 2]
        sizes = [
            (n + p + q - (k - 1) * d - 1) // s + 1
            for n, p, q, k, d, s in zip(
                size, pads, pads[rank:], kernel, dilations, strides, strict=False
            )
        ]
        if min(sizes) < 1:
            return None
        return {"strides": strides, "dilations": dilations, "pads": pads, "sizes": sizes}

    def add_conv(self, x: str) -> None:
        inputs = self.channels(x)
        group = int(self.one_of(*(g for g in (1, 1, 2, inputs) if inputs % g == 0)))
        outputs = group * self.number(1, max(1, 6 // group))
        if self.draw(st.booleans()):
            outputs = inputs
        kernel = [int(self.one_of(1, 2, 3, 3)) for _ in range(self.rank)]
        if self.number(0, 2) == 0:
            kernel = [1] * self.rank
        window = self.window(x, kernel)
        if window is None:
            return
        sizes = window.pop("sizes")
        given: dict[str, object] = dict(window)
        if self.number(0, 4) == 0 and set(window["dilations"]) == {1}:
            del given["pads"]
            given["auto_pad"] = self.one_of("SAME_UPPER", "SAME_LOWER")
            size = self.shapes[x][2:]
            sizes = [-(-n // s) for n, s in zip(size, window["strides"], strict=True)]
        bias = self.draw(st.booleans())
        name = self.b.conv(x, inputs, outputs, kernel, bias, group, **given)
        self.shapes[name] = (self.shapes[x][0], outputs, *sizes)

    def alike(self, x: str) -> str:
        kernel = [int(self.one_of(1, 3)) for _ in range(self.rank)]
        pads = [k // 2 for k in kernel] * 2
        name = self.b.conv(x, self.channels(x), self.channels(x), kernel, pads=pads)
        self.shapes[name] = self.shapes[x]
        return name

    def add_norm(self, x: str) -> None:
        given = {"epsilon": 1e-2} if self.draw(st.booleans()) else {}
        name = self.b.batch_norm(x, self.channels(x), **given)
        self.shapes[name] = self.shapes[x]

    def add_crop(self, x: str) -> None:
        axes, starts, ends, steps, shape = [], [], [], [], list(self.shapes[x])
        for axis in range(2, 2 + self.rank):
            if self.draw(st.booleans()):
                axes.append(axis)
                starts.append(self.number(-3, 2))
                ends.append(int(self.one_of(MANY, MANY, -1, 99, shape[axis] - 1)))
                steps.append(self.number(1, 2) if self.b.opset >= 10 else 1)
                shape[axis] = len(range(shape[axis])[starts[-1] : ends[-1] : steps[-1]])
        if axes and min(shape) > 0:
            self.cut(x, axes, starts, ends, steps, tuple(shape))

    def add_pad(self, x: str) -> None:
        low = -1
        begins = [self.number(low, 2) for _ in range(self.rank)]
        ends = [self.number(low, 2) for _ in range(self.rank)]
        lead = [0, 0]
        if self.number(0, 3) == 0:
            begins, ends, lead = [0] * self.rank, [0] * self.rank, [1, 2]
        widths = [0, lead[0], *begins, 0, lead[1], *ends]
        size = self.shapes[x][2:]
        sizes = [n + p + q for n, p, q in zip(size, begins, ends, strict=True)]
        if min(sizes) < 1:
            return
        value = float(self.one_of(0.0, 0.0, 0.75))
        shape = (self.shapes[x][0], self.channels(x) + sum(lead), *sizes)
        if self.b.opset < 11:
            self.put("Pad", x, shape=shape, pads=widths, value=value)
        else:
            self.put("Pad", x, self.b.constant(widths), self.b.constant(value), shape=shape)

    def add_pool(self, x: str) -> None:
        kernel = [self.number(1, 3) for _ in range(self.rank)]
        window = self.window(x, kernel, small=True)
        if window is None:
            return
        sizes = window.pop("sizes")
        del window["dilations"]
        count = self.number(0, 1)
        shape = (*self.shapes[x][:2], *sizes)
        self.put(
            "AveragePool", x, shape=shape, kernel_shape=kernel, count_include_pad=count, **window
        )

    def add_transposed(self, x: str) -> None:
        inputs, rank = self.channels(x), self.rank
        group = int(self.one_of(*(g for g in (1, 2, inputs) if inputs % g == 0)))
        per_group = self.number(1, max(1, 4 // group))
        kernel = [self.number(1, 3) for _ in range(rank)]
        strides = [self.number(1, 2) for _ in range(rank)]
        pads = [self.number(0, (k - 1) // 2) for k in kernel] * 2
        size = self.shapes[x][2:]
        sizes = [
            (n - 1) * s + k - 2 * p for n, s, k, p in zip(size, strides, kernel, pads, strict=False)
        ]
        if min(sizes) < 1 or max(sizes) > 20:
            return
        extra = [self.b.random(per_group * group)] if self.draw(st.booleans()) else []
        weight = self.b.random(inputs, per_group, *kernel)
        shape = (self.shapes[x][0], per_group * group, *sizes)
        self.put(
            "ConvTranspose", x, weight, *extra, shape=shape, group=group, strides=strides, pads=pads
        )

    def add_shuffle(self, x: str) -> None:
        total, rank = self.channels(x), self.rank
        factors = [g for g in (2, 3) if total % g == 0]
        if not factors or self.sizes:
            return
        group = int(self.one_of(*factors))
        batch, _, *size = self.shapes[x]
        wide = self.b.op("Reshape", x, self.b.constant([batch, group, total // group, *size]))
        turned = self.b.op("Transpose", wide, perm=[0, 2, 1, *range(3, 3 + rank)])
        last = self.b.constant([batch, total, *size])
        self.put("Reshape", turned, last, shape=self.shapes[x])


class _Matrix(_Grower):
    """(*batch, C) with MatMul and Gemm."""

    kinds = (
        *("linear",) * 4,
        *("sum",) * 3,
        *("constant",) * 3,
        "concat",
        "norm",
        "negation",
        "passing",
        "opaque",
        "split",
        "gather",
        "channel_slice",
    )

    def first_shape(self) -> tuple[int, ...]:
        self.axis = self.rank + 1
        return (*(self.number(1, 4) for _ in range(self.rank + 1)), self.number(2, 5))

    def add_linear(self, x: str) -> None:
        inputs, outputs = self.channels(x), self.number(1, 5)
        shape = self.with_channels(x, outputs)
        if self.rank == 0 and self.draw(st.booleans()):
            turned = self.number(0, 1)
            weight = self.b.random(*((outputs, inputs) if turned else (inputs, outputs)))
            given = {"alpha": 0.7} if self.draw(st.booleans()) else {"beta": 1.6}
            bias = self.b.random(outputs)
            self.put("Gemm", x, weight, bias, shape=shape, transB=turned, **given)
        else:
            self.put("MatMul", x, self.b.random(inputs, outputs), shape=shape)

    def alike(self, x: str) -> str:
        count = self.channels(x)
        return self.put("MatMul", x, self.b.random(count, count), shape=self.shapes[x])

    def add_norm(self, x: str) -> None:
        if self.rank == 0:
            name = self.b.batch_norm(x, self.channels(x))
            self.shapes[name] = self.shapes[x]
