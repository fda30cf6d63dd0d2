"""Tensors that hold numbers in few bits, and the operators that make and read them.

They are the runtime's: it knows a layer of integers by the pairs of QuantizeLinear and
DequantizeLinear around it, and a weight of 2, 4 or 8 bits is small only as long as nobody writes
out what it stands for.
"""

from __future__ import annotations

QUANTIZING = frozenset(
    {
        *("ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"),
        *("QLinearConv", "QLinearMatMul", "QuantizeLinear"),
    }
)
"""Operators of ONNX that take or give codes for numbers."""
