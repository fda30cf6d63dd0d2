"""Growing a random model of matrices."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.lift.random_bodies import BodyGrower


class Matrix(BodyGrower):
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
        elif self.number(0, 3) == 0 and not self.sizes:
            self.add_turned(x)
        else:
            self.put("MatMul", x, self.b.random(inputs, outputs), shape=shape)

    def add_turned(self, x: str) -> None:
        """A product over the axis in front of the last, or over rows of x."""
        *batch, rows, count = self.shapes[x]
        outputs = self.number(1, 5)
        if batch or self.number(0, 1):
            weight = self.b.random(outputs, rows)
            self.put("MatMul", weight, x, shape=(*batch, outputs, count))
        else:
            weight = self.b.random(rows, outputs)
            bias = [self.b.random(outputs)] if self.number(0, 1) or self.b.opset < 11 else []
            self.put("Gemm", x, weight, *bias, shape=(count, outputs), transA=1)

    def alike(self, x: str) -> str:
        count = self.channels(x)
        return self.put("MatMul", x, self.b.random(count, count), shape=self.shapes[x])

    def add_norm(self, x: str) -> None:
        if self.rank == 0:
            name = self.b.batch_norm(x, self.channels(x))
            self.shapes[name] = self.shapes[x]

    def add_quantized_layer(self, x: str) -> None:
        if not self.setting.quantizes:
            return
        outputs = self.number(1, 4)
        weight = self.dequantized(self.channels(x), outputs)
        self.put("MatMul", x, weight, shape=self.with_channels(x, outputs))
