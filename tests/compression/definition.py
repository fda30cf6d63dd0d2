"""The stored formula, from its definition: integers out of bytes, numbers rounded from float64.

    D = float32((q - z) * s),  W = float32(float32(D * a) + c),  weight = W in its type

A product of two float32 is exact in float64, and a sum rounded twice is rounded right there.
"""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

BITS = {"INT2": 2, "INT4": 4, "INT8": 8}


def unpacked(tensor):
    """The integers of a tensor, one after the other out of its bytes, lowest bits first."""
    bits = BITS[onnx.TensorProto.DataType.Name(tensor.data_type)]
    count = int(np.prod(tensor.dims))
    stream = int.from_bytes(tensor.raw_data, "little")
    low = [(stream >> (bits * i)) & ((1 << bits) - 1) for i in range(count)]
    signed = [value - (1 << bits) if value >> (bits - 1) else value for value in low]
    return np.array(signed, np.int64).reshape(tuple(tensor.dims))


def weight_by_definition(model, name):
    """What the nodes that make a weight compute."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    half = {np.float16: np.float16, np.float32: np.float32}

    def value(tensor):
        if tensor in tensors:
            kind = onnx.TensorProto.DataType.Name(tensors[tensor].data_type)
            made = tensors[tensor]
            return unpacked(made) if kind in BITS else numpy_helper.to_array(made)
        node = makers[tensor]
        given = [value(part) for part in node.input]
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Cast":
            return given[0].astype(helper.tensor_dtype_to_np_dtype(options["to"]))
        if node.op_type == "Reshape":
            return np.reshape(given[0], given[1])
        if node.op_type in ("Mul", "Add"):
            first, second = given[0].astype(np.float64), given[1].astype(np.float64)
            exact = first * second if node.op_type == "Mul" else first + second
            return exact.astype(np.float32)
        assert node.op_type == "DequantizeLinear"
        axis, size = options["axis"], options["block_size"]
        which = np.arange(given[0].shape[axis]) // size
        zero = np.take(given[2], which, axis) if len(given) > 2 else 0
        exact = (given[0] - zero) * np.take(given[1].astype(np.float64), which, axis)
        return exact.astype(half[given[1].dtype.type])

    return value(name)


def run_for(model, names, feeds, optimized):
    """Tensors of a model, by ONNX Runtime."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {output.name for output in copy.graph.output}
    for name in names:
        if name not in known:
            copy.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(copy.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(list(names), feeds)


def papers_rule(blocks, bits):
    """The squared error of each block (n, values) by the paper's rule, in float64."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    errors = []
    for block in blocks.astype(np.float64):
        peak = block[np.abs(block).argmax()]
        if peak == 0:
            errors.append(0.0)
            continue
        q = np.clip(np.round(block / (peak / low)), low, high)
        s = (block @ q) / (q @ q)
        errors.append(float(np.sum((block - s * q) ** 2)))
    return np.array(errors)


def best_of_all(block, bits, zero=0):
    """The least squared error of a small block: integers change only at known steps, all tried."""
    low, high = -(2 ** (bits - 1)) - zero, 2 ** (bits - 1) - 1 - zero
    halves = np.arange(low, high) + 0.5
    edges = np.unique(np.concatenate([np.abs(value / halves) for value in block if value]))
    steps = np.concatenate([edges[:1] / 2, (edges[1:] + edges[:-1]) / 2, edges[-1:] * 2])
    best = float(block @ block)
    for step in (*steps, *-steps):
        q = np.clip(np.round(block / step), low, high)
        if q @ q:
            best = min(best, float(block @ block - (block @ q) ** 2 / (q @ q)))
    return best
