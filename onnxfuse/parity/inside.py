"""Operators for onnx's reference evaluator, which evaluates bodies, where its own are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_loop

from onnxfuse.reference import evaluate


class Loop(op_loop.Loop):  # type: ignore[misc, unused-ignore]
    """Scan outputs are stacked along a new axis (ONNX, every opset)."""

    op_domain = ""

    def _run(
        self: Any,
        M: Any,
        cond: Any,
        *args: Any,
        context: Any = None,
        body: Any = None,
        attributes: Any = None,
        bindings: Any = None,
    ) -> tuple[Any, ...]:
        scans: list[list[Any]] = [[] for _ in range(self.K)]
        state, count = args, 0
        goes_on = True if cond is None else cond
        while goes_on and (M is None or count < M):
            given = (np.asarray(count, np.int64), np.asarray(goes_on), *state)
            named = dict(zip(self.body.input_names, given, strict=True))
            made = self._run_body(
                {**(context or {}), **named}, attributes=attributes, bindings=bindings
            )
            goes_on, state, count = made[0], made[1 : 1 + self.N], count + 1
            for scan, value in zip(scans, made[1 + self.N :], strict=True):
                scan.append(value)
        return (*state, *(np.stack(scan) for scan in scans))


class _Reference(OpRun):  # type: ignore[misc, unused-ignore]
    """As `onnxfuse.reference` evaluates the node."""

    op_domain = ""

    def _run(self: Any, *inputs: Any, **_: Any) -> tuple[Any, ...]:
        node = self.onnx_node
        values = {n: v for n, v in zip(node.input, inputs, strict=False) if n}
        made = evaluate([node], values, self.run_params["opsets"][""])
        return tuple(made[name] for name in node.output if name)


OPERATORS: list[type[OpRun]] = [
    Loop,
    *(
        type(name, (_Reference,), {})
        for name in (
            *("AveragePool", "BatchNormalization", "ConvInteger", "ConvTranspose"),
            *("DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "Pad"),
            *("QLinearConv", "QLinearMatMul", "QuantizeLinear"),
        )
    ),
]
"""onnx's own joins scan outputs of loops, gets BatchNormalization before opset 14 and AveragePool
with ceil_mode wrong, lacks grouped ConvTranspose and negative padding, and quantizes in float32."""
