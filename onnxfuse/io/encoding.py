"""Models in protobuf's wire format, piece by piece.

`SerializeToString` holds two copies of all weights for a moment. Here a message with much data in
it is written field by field, and a big tensor's data is read when its turn comes:

    message -> fields before its tensors | each tensor or what carries it, alike | fields after

The bytes are those of `SerializeToString`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto

from onnxfuse.hollow import CARRIERS, copy_field, items, payload_bytes, prefix, tensors, unknown

_WHOLE = 1 << 20  # a message with less tensor data than this is one piece

Piece = bytes | TensorProto  # a tensor stands for its raw data


def encode(message: Any) -> tuple[int, list[Piece]]:
    """Length of a message in wire format, and the pieces that it is made of."""
    if sum(map(payload_bytes, tensors(message))) < _WHOLE:
        data = message.SerializeToString()
        return len(data), [data]
    length = 0
    pieces: list[Piece] = []
    carriers = CARRIERS.get(type(message).__name__, ())
    for field in _fields(message.DESCRIPTOR):
        parts: Iterable[tuple[int, list[Piece]]]
        if field.name in carriers:
            parts = map(encode, items(message, field.name))
        elif field.name == "raw_data" and message.HasField("raw_data"):
            parts = [(len(message.raw_data), [message])]
        else:
            copy_field(message, alone := type(message)(), field)
            pieces.append(alone.SerializeToString())
            length += len(pieces[-1])
            continue
        for size, inner in parts:
            head = prefix(field.number, size)
            pieces += [head, *inner]
            length += len(head) + size
    pieces.append(unknown(message))
    return length + len(pieces[-1]), pieces


def content(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """The bytes of pieces, one big tensor at a time."""
    for piece in pieces:
        yield piece if isinstance(piece, bytes) else piece.raw_data


@cache
def _fields(descriptor: Any) -> list[FieldDescriptor]:
    """A message type's fields in the order in which protobuf writes them."""
    return sorted(descriptor.fields, key=lambda field: field.number)
