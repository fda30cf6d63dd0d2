"""The tensors in a model, and weightless copies of models.

A model's structure is small and its weights are not. `hollow` copies the first without the second,
so checking, typing and writing cost the same for 500 MB and for models beyond protobuf's 2 GB.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from google.protobuf import message, unknown_fields
from onnx import AttributeProto, TensorProto

INLINE_BYTES = 1 << 10
"""Tensors smaller than this count as structure: they may be shapes, axes or scalars."""

CARRIERS: dict[str, tuple[str, ...]] = {
    "ModelProto": ("graph", "functions", "training_info"),
    "TrainingInfoProto": ("initialization", "algorithm"),
    "FunctionProto": ("node", "attribute_proto"),
    "GraphProto": ("node", "initializer"),
    "NodeProto": ("attribute",),
    "AttributeProto": ("t", "tensors", "g", "graphs"),
}
"""Where each message keeps tensors, directly or further down."""

HOLDING = frozenset(
    AttributeProto.AttributeType.Value(name) for name in ("TENSOR", "TENSORS", "GRAPH", "GRAPHS")
)
"""Types of attributes that hold tensors, directly or further down."""

_SPARSE: dict[str, tuple[str, ...]] = {
    "GraphProto": ("sparse_initializer",),
    "AttributeProto": ("sparse_tensor", "sparse_tensors"),
}
_HOLDING_ANY = HOLDING | {AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS}

_PACKED = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_BITS = {
    number: _PACKED.get(name) or onnx.helper.tensor_dtype_to_np_dtype(number).itemsize * 8
    for name, number in TensorProto.DataType.items()
    if name not in ("UNDEFINED", "STRING")
}
_DATA_FIELDS = frozenset(
    f.name for f in TensorProto.DESCRIPTOR.fields if f.name.endswith(("_data", "data_location"))
)

Emptied = list[tuple[TensorProto, TensorProto]]


def payload_bytes(tensor: TensorProto) -> int:
    """Bytes of the tensor's raw form, from its type and shape alone; 0 for strings."""
    return int(math.prod(tensor.dims) * _BITS.get(tensor.data_type, 0) + 7) // 8


def is_external(tensor: TensorProto) -> bool:
    """True when the tensor's data is in a file beside the model."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def is_big(tensor: TensorProto) -> bool:
    """True when the tensor's data is no structure: external, or 1 KiB and more."""
    return is_external(tensor) or payload_bytes(tensor) >= INLINE_BYTES


def items(carrier: Any, name: str) -> Any:
    """The messages in a field, repeated or not, that is a carrier of tensors."""
    value = getattr(carrier, name)
    return value if hasattr(value, "append") else (value,) * carrier.HasField(name)


def tensors(carrier: Any, sparse: list[TensorProto] | None = None) -> Iterator[TensorProto]:
    """Every dense tensor in a model, graph or node: weights, attributes, bodies, functions.

    `sparse` takes the values and the indices of sparse tensors on the way.
    """
    if isinstance(carrier, TensorProto):
        yield carrier
        return
    kind = type(carrier).__name__
    if sparse is not None:
        for name in _SPARSE.get(kind, ()):
            sparse.extend(part for s in items(carrier, name) for part in (s.values, s.indices))
    for name in CARRIERS[kind]:
        for item in items(carrier, name):
            if isinstance(item, TensorProto):
                yield item
            elif not isinstance(item, AttributeProto) or item.type in _HOLDING_ANY:
                yield from tensors(item, sparse)


def hollow(model: onnx.ModelProto, emptied: Emptied | None = None) -> onnx.ModelProto:
    """Copies a model without the data of its big tensors; everything else is carried over.

    Tensors of 1 KiB and more, and external ones, are marked as external in the copy and name no
    file. Their data is not copied, not even for a moment. `emptied` takes the pairs (tensor, its
    empty copy).
    """
    hollow_into(model, copy := onnx.ModelProto(), [] if emptied is None else emptied)
    return copy


def hollow_into(source: Any, target: Any, emptied: Emptied) -> None:
    """Does what `hollow` does to any message that may carry tensors."""
    if isinstance(source, TensorProto):
        _copy_fields(source, target, _DATA_FIELDS if is_big(source) else ())
        if is_big(source):
            target.data_location = TensorProto.EXTERNAL
            emptied.append((source, target))
        return
    carriers = CARRIERS[type(source).__name__]
    _copy_fields(source, target, carriers)
    for name in carriers:
        value = getattr(source, name)
        if not hasattr(value, "append"):
            if source.HasField(name):
                hollow_into(value, getattr(target, name), emptied)
            continue
        copies = getattr(target, name)
        for item in value:
            if name == "node" and not any(a.type in HOLDING for a in item.attribute):
                copies.append(item)
            elif any(map(is_big, tensors(item))):
                hollow_into(item, copies.add(), emptied)
            else:
                copies.append(item)


def _copy_fields(source: Any, target: Any, skip: Iterable[str]) -> None:
    """Copies all fields but some, those that this version of onnx has no name for included."""
    for field in source.DESCRIPTOR.fields:  # ListFields() would read the skipped data too
        if field.name not in skip:
            copy_field(source, target, field)
    target.MergeFromString(unknown(source))


def copy_field(source: Any, target: Any, field: Any) -> None:
    """Copies one field, given by its descriptor, if it is set."""
    value = getattr(source, field.name)
    if hasattr(value, "append"):
        getattr(target, field.name).extend(value)
    elif not source.HasField(field.name):
        pass
    elif isinstance(value, message.Message):
        getattr(target, field.name).CopyFrom(value)
    elif isinstance(value, bytes):  # as is text that is not UTF-8, which cannot be set
        target.MergeFromString(prefix(field.number, len(value)) + value)
    else:
        setattr(target, field.name, value)


# Wire format ------------------------------------------------------------------------------------


def prefix(number: int, length: int) -> bytes:
    """What precedes `length` bytes of the field `number`: a message, text or raw data."""
    return _varint(number << 3 | 2) + _varint(length)


def unknown(source: Any) -> bytes:
    """The fields of a message that this version of onnx has no name for."""
    return _encoded(unknown_fields.UnknownFieldSet(source))


def _encoded(fields: Any) -> bytes:
    out = bytearray()
    for field in fields:
        number, wire, data = field.field_number << 3, field.wire_type, field.data
        if wire == 2:
            out += prefix(field.field_number, len(data)) + data
            continue
        out += _varint(number | wire)
        if wire == 0:
            out += _varint(data)
        elif wire == 3:
            out += _encoded(data) + _varint(number | 4)
        else:
            out += data.to_bytes(8 if wire == 1 else 4, "little")
    return bytes(out)


def _varint(value: int) -> bytes:
    high, low = value >> 7, value & 127
    return bytes([low]) if not high else bytes([low | 128]) + _varint(high)
