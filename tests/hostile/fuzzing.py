"""Spoiling models: bytes, and the messages that they are made of.

Everything depends on the number of the case alone, so a case that fails can be made again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import EncodeError
from onnx import AttributeProto, TensorProto

from tests.hostile.seeds import SEEDS
from tests.io.building import external

NUMBERS = (0, 1, 2, 3, -1, -2, 5, 16, 255, 65536, 2**31 - 1, -(2**31), 10**12, 2**62, -(2**63))
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, float("inf"), float("nan"))
TEXTS = ("", "x", "y", "w", "ai.onnx", "com.microsoft", "\0", "../x", "é" * 300, "a" * 5000)
OPERATORS = sorted({s.name for s in onnx.defs.get_all_schemas()} - {"ImageDecoder"})


def spoil(number: int, folder: Path) -> Path:
    """Writes the spoilt model of a number, and what belongs to it, into a folder."""
    rng = random.Random(number)
    name = rng.choice(sorted(SEEDS))
    model = onnx.ModelProto()
    model.CopyFrom(SEEDS[name])
    kept_outside = name in ("branches", "rich", "layers") and rng.random() < 0.3
    path = folder / "net.onnx"
    if kept_outside:
        external(model, folder)
        model = onnx.load(path, load_external_data=False)
    kind = rng.random()
    if kind < 0.75:
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            rng.choice(CHANGES)(rng, model)
    data = _serialized(model)
    if kind > 0.65:
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            data = _spoilt_bytes(rng, data)
    path.write_bytes(data)
    if kept_outside and rng.random() < 0.2:
        data_file = folder / "net.bin"
        data_file.write_bytes(_spoilt_bytes(rng, data_file.read_bytes()))
    return path


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except EncodeError:  # text that is not UTF-8
        return bytes(model.SerializePartialToString())


def _spoilt_bytes(rng: random.Random, data: bytes) -> bytes:
    """One change: bits, a byte, a piece taken out, doubled, moved, or the end cut off."""
    if not data:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
    at = rng.randrange(len(data)) if rng.random() < 0.6 else rng.randrange(min(len(data), 300))
    size = rng.choice((1, 1, 1, 2, 4, 16, 200))
    piece = data[at : at + size]
    kind = rng.randrange(7)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + bytes([rng.choice((0, 1, 127, 128, 255))]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + rng.randbytes(size) + data[at:]
    if kind == 3:
        return data[:at] + data[at + size :]
    if kind == 4:
        return data[:at] + piece + data[at:]
    if kind == 5:
        to = rng.randrange(len(data))
        return data[:to] + piece + data[to + len(piece) :]
    return data[:at]


# Messages ---------------------------------------------------------------------------------------


def _messages(message: Any) -> Iterator[Any]:
    """The message, and all in it."""
    yield message
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value if hasattr(value, "append") else (value,):
                yield from _messages(item)


def _some(rng: random.Random, model: onnx.ModelProto, kind: type[Any] | None = None) -> Any:
    found = [m for m in _messages(model) if kind is None or isinstance(m, kind)]
    return rng.choice(found) if found else None


def _names(model: onnx.ModelProto) -> list[str]:
    nodes = [m for m in _messages(model) if isinstance(m, onnx.NodeProto)]
    return [n for node in nodes for n in (*node.input, *node.output)] or ["x"]


def _scalar(rng: random.Random, field: FieldDescriptor, model: onnx.ModelProto) -> Any:
    kinds = FieldDescriptor
    if field.type in (kinds.TYPE_FLOAT, kinds.TYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.type == kinds.TYPE_STRING:
        return rng.choice((rng.choice(TEXTS), rng.choice(_names(model))))
    if field.type == kinds.TYPE_BYTES:
        return rng.choice((b"", b"\xff", b"SAME_UPPER", b"VALID", b"\0" * 8, rng.randbytes(40)))
    if field.type == kinds.TYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    number = rng.choice(NUMBERS)
    if field.type in (kinds.TYPE_INT32,):
        return max(-(2**31), min(number, 2**31 - 1))
    return abs(number) if field.type == kinds.TYPE_UINT64 else number


def change_field(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another value in a field that is there, or one in a field that was not."""
    message = _some(rng, model)
    fields = [f for f in message.DESCRIPTOR.fields if f.type != FieldDescriptor.TYPE_MESSAGE]
    there = [f for f, _ in message.ListFields() if f.type != FieldDescriptor.TYPE_MESSAGE]
    if not fields:
        return
    field = rng.choice(there if there and rng.random() < 0.7 else fields)
    value = getattr(message, field.name)
    made = _scalar(rng, field, model)
    if not hasattr(value, "append"):
        setattr(message, field.name, made)
    elif len(value) and rng.random() < 0.7:
        value[rng.randrange(len(value))] = made
    else:
        value.append(made)


def drop_field(rng: random.Random, model: onnx.ModelProto) -> None:
    """A field, or one item of it, gone."""
    message = _some(rng, model)
    there = [field for field, _ in message.ListFields()]
    if there:
        field = rng.choice(there)
        value = getattr(message, field.name)
        if hasattr(value, "append") and rng.random() < 0.8:
            del value[rng.randrange(len(value))]
        else:
            message.ClearField(field.name)


def double_item(rng: random.Random, model: onnx.ModelProto) -> None:
    """An item of a repeated field twice."""
    message = _some(rng, model)
    there = [v for _, v in message.ListFields() if hasattr(v, "append")]
    if there:
        values = rng.choice(there)
        values.append(rng.choice(values))


def swap_items(rng: random.Random, model: onnx.ModelProto) -> None:
    """The items of a repeated field in another order."""
    message = _some(rng, model)
    there = [v for _, v in message.ListFields() if hasattr(v, "append")]
    if there:
        values = rng.choice(there)
        items = list(values)
        if hasattr(values, "add"):
            items = [type(item).FromString(item.SerializePartialToString()) for item in items]
        rng.shuffle(items)
        del values[:]
        values.extend(items)


def take_from_elsewhere(rng: random.Random, model: onnx.ModelProto) -> None:
    """A message in the place of another one of its kind."""
    message = _some(rng, model)
    other = _some(rng, model, type(message))
    copy = type(message).FromString(other.SerializePartialToString())
    message.CopyFrom(copy)


def change_tensor(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another type, other dims, or less data."""
    tensor = _some(rng, model, TensorProto)
    if tensor is None:
        return
    kind = rng.randrange(5)
    if kind == 0:
        tensor.data_type = rng.choice((*range(25), 99))
    elif kind == 1 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    elif kind == 2:
        dims = list(tensor.dims)
        rng.shuffle(dims)
        del tensor.dims[:]
        tensor.dims.extend(rng.choice((dims, dims[1:], [1, *dims], [], [0])))
    elif kind == 3:
        tensor.raw_data = tensor.raw_data[: rng.randrange(1 + len(tensor.raw_data))]
    elif tensor.raw_data:
        size = len(tensor.raw_data)
        tensor.raw_data = (rng.choice((b"\0", b"\xff", b"\x7f\xc0")) * size)[:size]


def change_attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another type, another name, other numbers, or an attribute that was not there."""
    node = _some(rng, model, onnx.NodeProto)
    if node is None:
        return
    if not node.attribute or rng.random() < 0.3:
        names = ("group", "pads", "strides", "dilations", "axis", "auto_pad", "perm", "to")
        names += ("kernel_shape", "epsilon", "alpha", "transA", "training_mode", "output_shape")
        added = node.attribute.add(name=rng.choice(names))
    else:
        added = rng.choice(node.attribute)
    kind = rng.randrange(6)
    if kind == 0:
        added.type = rng.choice(AttributeProto.AttributeType.values())
    elif kind == 1:
        added.type = AttributeProto.INTS
        del added.ints[:]
        added.ints.extend(rng.choice(NUMBERS) for _ in range(rng.randrange(6)))
    elif kind == 2:
        added.type, added.i = AttributeProto.INT, rng.choice(NUMBERS)
    elif kind == 3:
        added.type, added.f = AttributeProto.FLOAT, rng.choice(FLOATS)
    elif kind == 4:
        added.type, added.s = AttributeProto.STRING, rng.choice((b"SAME_LOWER", b"", b"\xff"))
    elif added.ints:
        added.ints[rng.randrange(len(added.ints))] = rng.choice(NUMBERS)


def rewire(rng: random.Random, model: onnx.ModelProto) -> None:
    """A node that reads or makes another tensor, one more, or one less."""
    node = _some(rng, model, onnx.NodeProto)
    if node is None:
        return
    side = rng.choice((node.input, node.input, node.output))
    name = rng.choice((*_names(model), ""))
    kind = rng.randrange(5)
    if kind < 3 and side:
        side[rng.randrange(len(side))] = name
    elif kind == 3:
        side.append(name)
    elif side:
        del side[rng.randrange(len(side))]


def change_operator(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another operator in a node's place."""
    node = _some(rng, model, onnx.NodeProto)
    if node is not None:
        known = [n.op_type for n in _messages(model) if isinstance(n, onnx.NodeProto)]
        node.op_type = rng.choice((rng.choice(OPERATORS), rng.choice(known)))


def change_version(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another opset or IR version."""
    model.ir_version = rng.choice((model.ir_version, *range(1, 14)))
    if model.opset_import:
        rng.choice(model.opset_import).version = rng.choice((*range(6, 27), *NUMBERS))


def change_input_type(rng: random.Random, model: onnx.ModelProto) -> None:
    """Another element type or another shape declared."""
    info = _some(rng, model, onnx.ValueInfoProto)
    if info is None:
        return
    kind = info.type.tensor_type
    if rng.random() < 0.4:
        kind.elem_type = rng.choice((*range(25), -1, 99))
    elif kind.shape.dim:
        dim = rng.choice(kind.shape.dim)
        dim.dim_value = rng.choice(NUMBERS)
    elif rng.random() < 0.5:
        info.type.sequence_type.elem_type.tensor_type.elem_type = 1


CHANGES: tuple[Callable[[random.Random, onnx.ModelProto], None], ...] = (
    change_field,
    change_field,
    drop_field,
    double_item,
    swap_items,
    take_from_elsewhere,
    change_tensor,
    change_tensor,
    change_attribute,
    change_attribute,
    rewire,
    rewire,
    change_operator,
    change_version,
    change_input_type,
)
