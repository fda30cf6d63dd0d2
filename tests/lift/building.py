"""Small models, built node by node."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


class Builder:
    """Collects the nodes and weights of one model; every method returns a tensor's name."""

    def __init__(
        self,
        opset: int = 17,
        elem_type: int = TensorProto.FLOAT,
        seed: int = 0,
        prefix: str = "",
    ) -> None:
        self.opset, self.elem_type = opset, elem_type
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self._prefix, self._count = prefix, itertools.count()

    def _name(self, role: str) -> str:
        return f"{self._prefix}{role}_{next(self._count)}"

    def input(self, *shape: int | str | None, name: str = "x", elem_type: int = 0) -> str:
        kind = elem_type or self.elem_type
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def constant(self, value: object, name: str = "", elem_type: int = 0) -> str:
        """An initializer; floats take the model's type, integers are int64."""
        array = np.asarray(value)
        kind = elem_type or (self.elem_type if array.dtype.kind == "f" else TensorProto.INT64)
        name = name or self._name("constant")
        array = array.astype(helper.tensor_dtype_to_np_dtype(kind))
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def random(self, *shape: int, name: str = "", low: float = 0.3, high: float = 1.2) -> str:
        """Random numbers of either sign, none of them near zero or one."""
        return self.constant(self.values(*shape, low=low, high=high), name)

    def values(self, *shape: int, low: float = 0.3, high: float = 1.2) -> np.ndarray:
        sign = np.where(self.rng.random(shape) < 0.5, -1.0, 1.0)
        return np.asarray(sign * self.rng.uniform(low, high, shape))

    def positive(self, *shape: int, low: float = 0.3, high: float = 1.7) -> str:
        return self.constant(self.rng.uniform(low, high, shape))

    def op(self, op_type: str, *inputs: str, output: str = "", **attributes: object) -> str:
        return self.ops(op_type, *inputs, outputs=[output or self._name("t")], **attributes)[0]

    def ops(
        self, op_type: str, *inputs: str, outputs: Sequence[str] | int = 1, **attributes: object
    ) -> list[str]:
        if isinstance(outputs, int):
            outputs = [self._name("t") for _ in range(outputs)]
        name = self._name(op_type)
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=name, **attributes))
        return list(outputs)

    # Layers ------------------------------------------------------------------------------------

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        kernel: Sequence[int] = (3, 3),
        bias: bool = True,
        group: int = 1,
        output: str = "",
        **attributes: object,
    ) -> str:
        weight = self.random(outputs, inputs // group, *kernel)
        extra = [self.random(outputs)] if bias else []
        return self.op("Conv", x, weight, *extra, output=output, group=group, **attributes)

    def batch_norm(self, x: str, channels: int, output: str = "", **attributes: object) -> str:
        statistics = [self.random(channels), self.random(channels), self.random(channels)]
        variance = self.positive(channels)
        return self.op("BatchNormalization", x, *statistics, variance, output=output, **attributes)

    def model(
        self,
        *outputs: str,
        ir_version: int | None = None,
        types: Mapping[str, int] | None = None,
        list_initializers: bool = False,
    ) -> ModelProto:
        types = types or {}
        shapes = {tensor.name: tensor.dims for tensor in self.initializers}
        graph = helper.make_graph(
            self.nodes,
            "graph",
            list(self.inputs),
            [
                helper.make_tensor_value_info(
                    name, types.get(name, self.elem_type), shapes.get(name)
                )
                for name in outputs
            ],
            self.initializers,
        )
        if list_initializers:
            graph.input.extend(
                helper.make_tensor_value_info(t.name, t.data_type, t.dims)
                for t in self.initializers
            )
        opsets = [helper.make_opsetid("", self.opset)]
        version = ir_version or min(helper.find_min_ir_version_for(opsets) + 1, 10)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=version)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
            output.CopyFrom(known)
        return model


def same(kernel: Sequence[int]) -> list[int]:
    """Pads that keep the size of the input, for odd kernels."""
    return [k // 2 for k in kernel] * 2
