"""Writing: one file, or a model and its data beside it, that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf import message as pb
from onnx import numpy_helper

from onnxfuse.errors import ModelError
from onnxfuse.hollow import Emptied, hollow, is_external, payload_bytes, tensors
from onnxfuse.io.encoding import content, encode
from onnxfuse.io.files import PROTOBUF_LIMIT, check_data_target, check_target, one_line, put
from onnxfuse.io.source import Source

if TYPE_CHECKING:
    from onnxfuse.io.files import AnyPath, Content

_STRUCTURE_BYTES = 64 << 20  # room for everything but tensors, before a size is known exactly
_AT_ONCE = 4 << 20  # tensor data that may be in memory three times
_PAGE = 4096


def write(model: Source | onnx.ModelProto, path: AnyPath, *, limit: int = PROTOBUF_LIMIT) -> None:
    """Writes a model: one file, which appears whole or not at all.

    Weights of 1 KiB and more go to `<name>.data` beside it when the model was read with external
    data, or when it does not fit into one protobuf message. The input's files are never replaced.
    No more than one big tensor is copied at a time.

    Args:
        model: What `read` returned, its model changed or not; or a model in memory.
        path: Where to write. An existing file is replaced.
        limit: Bytes that the file can hold.

    Raises:
        ModelError: As `check_target`, the data's name is a link out of the folder, or writing
            failed; nothing is left behind then.
    """
    source = model if isinstance(model, Source) else Source(model)
    target = check_target(path, *source.files)
    try:
        whole = None if source.external else _whole(source.model, limit)
        if whole is not None:
            put(path, [(target, whole)])
        else:
            beside = check_data_target(target, *source.files)
            put(path, _split(source, target, beside))
    except pb.EncodeError as error:
        raise ModelError(f"{path}: cannot be written: {one_line(error)}") from error


def _whole(model: onnx.ModelProto, limit: int) -> Content | None:
    """The model as the content of one file, or None when it has to be split."""
    weights = list(tensors(model))
    payload = sum(map(payload_bytes, weights))
    if any(map(is_external, weights)) or payload > limit - min(_STRUCTURE_BYTES, limit // 2):
        return None
    with suppress(pb.EncodeError, ValueError):  # protobuf's own limit
        if payload < _AT_ONCE:
            data = model.SerializeToString()
            return [data] if len(data) <= limit else None
        length, pieces = encode(model)
        return content(pieces) if length <= limit else None
    return None


def _split(source: Source, target: Path, beside: Path) -> Iterator[tuple[Path, Content]]:
    """The data file, big tensors one at a time, and then the model, which refers to it."""
    emptied: Emptied = []
    skeleton = hollow(source.model, emptied)
    if emptied:
        yield beside, _laid_out(source, emptied, beside.name)
    yield target, [skeleton.SerializeToString()]


def _laid_out(source: Source, emptied: Emptied, location: str) -> Content:
    """The data file's content; notes in each empty tensor where its data went."""
    end = 0
    for tensor, copy in emptied:
        raw: bytes | memoryview
        if is_external(tensor):
            raw = source.mapped(tensor).data
        elif tensor.HasField("raw_data"):
            raw = tensor.raw_data
        else:
            raw = numpy_helper.from_array(source.load(tensor)).raw_data
        start = -(-end // _PAGE) * _PAGE if len(raw) >= _PAGE else end
        yield bytes(start - end)
        yield raw
        end = start + len(raw)
        for key, value in (("location", location), ("offset", start), ("length", len(raw))):
            copy.external_data.add(key=key, value=str(value))
