"""Growing a random model: bodies of If and Loop, one in another too, and quantization."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.lift.random_growing import Grower
from tests.lift.random_settings import Setting

MORE = ("conditional", "loop", "quantized", "quantized_layer", "quantized_layer")
DEEPEST = 2


class BodyGrower(Grower):
    """Adds bodies, which read tensors of every graph around them, and layers in 8 bits."""

    def __init__(self, draw: Callable, rank: int, setting: Setting) -> None:
        super().__init__(draw, rank, setting)
        self.around: list[dict[str, tuple[int, ...]]] = []

    def step(self) -> None:
        more = MORE if self.setting.everything else ()
        getattr(self, "add_" + str(self.one_of(*self.kinds, *more)))(self.pick())

    def add_conditional(self, x: str) -> None:
        flag = "flag"
        if all(info.name != flag for info in self.b.inputs):
            self.b.input(name=flag, elem_type=TensorProto.BOOL)
        branches = {f"{side}_branch": self.body(x, x, side, []) for side in ("then", "else")}
        self.put("If", flag, shape=self.shapes[x], **branches)

    def add_loop(self, x: str) -> None:
        """A state that keeps its shape, and perhaps what it was in each round."""
        count = self.number(0, 2)
        scans = self.number(0, 1) if count else 0
        rounds = self.b.constant(count)
        go = self.b.constant(np.asarray(True), elem_type=TensorProto.BOOL)
        state = self.b.unused("state")
        given = [
            helper.make_tensor_value_info(self.b.unused("i"), TensorProto.INT64, []),
            helper.make_tensor_value_info(self.b.unused("go"), TensorProto.BOOL, []),
            helper.make_tensor_value_info(state, self.b.elem_type, self.declared(x)),
        ]
        body = self.body(x, state, "round", given, scans)
        names = self.b.ops("Loop", rounds, go, x, outputs=1 + scans, body=body)
        self.shapes[names[0]] = self.shapes[x]
        for scan in names[1:]:
            self.stacked[scan] = (count, *self.shapes[x])
            if self.number(0, 2):
                one = self.b.constant(self.number(0, count - 1))
                self.put("Gather", scan, one, shape=self.shapes[x], axis=0)

    def declared(self, x: str) -> list[int | None]:
        """A shape of which only the channels are sure."""
        known = self.number(0, 1) and not self.sizes
        return [d if known or axis == self.axis else None for axis, d in enumerate(self.shapes[x])]

    def body(
        self,
        x: str,
        first: str,
        role: str,
        given: list[onnx.ValueInfoProto],
        scans: int = 0,
    ) -> onnx.GraphProto:
        """A few operators that keep the shape of x; they read tensors from outside too.

        Args:
            x: What the If or Loop is about.
            first: What the body begins with.
            role: The body's name.
            given: Its inputs, the condition second.
            scans: Number of outputs besides the last tensor.
        """
        declared, shape, before = self.declared(x), self.shapes[x], set(self.stacked)
        outer = (self.b.nodes, self.b.initializers, self.shapes)
        self.b.nodes, self.b.initializers = [], []
        self.b.enclosing.append(outer[1])
        self.around.append(outer[2])
        self.shapes = {first: shape}
        if self.number(0, 1):
            captured = str(self.one_of(*self.alike_around(shape)))
            self.shapes = {captured: shape, **self.shapes}
        deeper = ("conditional", "loop", "loop") if len(self.around) < DEEPEST else ()
        for _ in range(self.number(0, 3)):
            kind = str(self.one_of("norm", "constant", "sum", "negation", "opaque", *deeper))
            getattr(self, "add_" + kind)(self.pick())
        last = self.alike(list(self.shapes)[-1])
        outputs = []
        if given:
            goes_on = self.b.op("Identity", given[1].name)
            outputs.append(helper.make_tensor_value_info(goes_on, TensorProto.BOOL, []))
        collected = [self.collected(last) for _ in range(scans)]
        outputs += [
            helper.make_tensor_value_info(n, self.b.elem_type, declared) for n in (last, *collected)
        ]
        graph = helper.make_graph(self.b.nodes, role, given, outputs, self.b.initializers)
        self.b.nodes, self.b.initializers, self.shapes = outer
        self.stacked = {name: self.stacked[name] for name in self.stacked if name in before}
        self.b.enclosing.pop()
        self.around.pop()
        return graph

    def collected(self, last: str) -> str:
        """A tensor that the body makes, other than its last, or a copy of that."""
        made = [n for node in self.b.nodes for n in node.output if n in self.shapes and n != last]
        return str(self.one_of(*made)) if made else self.b.op("Identity", last)

    def alike_around(self, shape: tuple[int, ...]) -> list[str]:
        """Tensors of that shape in the graphs around, those of the outermost more often."""
        levels = [self.around[0], *self.around]
        return [name for level in levels for name, found in level.items() if found == shape]

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
        per_axis = self.b.opset >= 13 and bool(self.number(0, 1))
        scales = self.b.rng.uniform(0.005, 0.015, shape[:1] if per_axis else ())
        zeros = np.zeros(scales.shape, np.int8)
        scale, zero = self.b.constant(scales), self.b.constant(zeros, elem_type=TensorProto.INT8)
        given = {"axis": 0} if per_axis else {}
        return self.b.op("DequantizeLinear", codes, scale, zero, **given)
