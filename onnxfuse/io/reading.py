"""Reading: whatever a model may come as, into a Source that has been checked."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf import message as pb
from onnx import TensorProto

from onnxfuse.errors import ModelError
from onnxfuse.hollow import INLINE_BYTES, hollow, is_external, payload_bytes, tensors
from onnxfuse.io.checks import check_header, check_names
from onnxfuse.io.files import PROTOBUF_LIMIT, content_of, one_line
from onnxfuse.io.nodes import check_nodes
from onnxfuse.io.order import sort_nodes
from onnxfuse.io.source import Source

if TYPE_CHECKING:
    from typing import TypeAlias

    import onnx_graphsurgeon as gs
    import torch

    AnyPath: TypeAlias = str | os.PathLike[str]
    Readable: TypeAlias = AnyPath | onnx.ModelProto | gs.Graph | torch.onnx.ONNXProgram

_FOREIGN = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model: run `git lfs pull`"),
    (0, b"PK\x03\x04", "a zip archive (a PyTorch file?), not an ONNX model"),
    (0, b"<", "a text file, not an ONNX model"),
    (4, b"ORTM", "an ONNX Runtime .ort file; pass the .onnx that it was made from"),
)


def read(model: Readable) -> Source:
    """Reads and checks a model; external dense tensors of 1 KiB and more stay where they are.

    Nodes that stand before those they depend on are put in order, as ONNX Runtime does it.

    Args:
        model: A path, an onnx.ModelProto, an onnx_graphsurgeon.Graph or a torch.onnx.ONNXProgram.
            It is not modified.

    Raises:
        ModelError: One line that says what makes the model unusable, and where.
    """
    path = Path(model) if isinstance(model, (str, os.PathLike)) else None
    source = Source(_own(model) if path is None else _parse(path), path)
    sparse: list[TensorProto] = []
    weights = list(tensors(source.model, sparse))
    check_header(source.model, [*weights, *sparse], source.name)
    outside, to_embed = list(filter(is_external, weights)), list(filter(is_external, sparse))
    files = {source.locate(tensor)[0] for tensor in (*outside, *to_embed)}
    if path is not None:
        files.add(Path(os.path.realpath(path)))
    if sum(map(payload_bytes, to_embed)) > PROTOBUF_LIMIT:
        raise ModelError(f"{source.name}: the data of its sparse tensors is larger than 2 GiB")
    if outside or to_embed:
        source.embed(below=INLINE_BYTES)
    sort_nodes(source.model.graph, source.name)
    check_names(source.model.graph, source.name)
    try:
        check_nodes(source.model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        raise ModelError(f"{source.name}: {one_line(error)}") from error
    return Source(source.model, path, bool(outside), frozenset(files))


def _parse(path: Path) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        data = content_of(path)
    except (OSError, ValueError, MemoryError) as error:
        raise ModelError(f"{path}: cannot be read: {one_line(error)}") from error
    if not data:
        raise ModelError(f"{path}: the file is empty")
    for offset, mark, meaning in _FOREIGN:
        if data.startswith(mark, offset):
            raise ModelError(f"{path}: {meaning}")
    try:
        model.ParseFromString(data)
    except pb.DecodeError as error:
        raise ModelError(f"{path}: not an ONNX model, or cut short") from error
    return model


def _own(model: Any) -> onnx.ModelProto:
    """A ModelProto that nobody else holds."""
    own = onnx.ModelProto()
    if _is_instance(model, "onnx_graphsurgeon", "Graph"):
        try:
            own = sys.modules["onnx_graphsurgeon"].export_onnx(model, do_type_check=False)
        except Exception as error:  # anything may be inside a graph that a user built by hand
            raise ModelError(f"onnx_graphsurgeon cannot export its graph: {error}") from error
    elif _is_instance(model, "torch.onnx", "ONNXProgram"):
        own = model.model_proto  # made anew by each access
    elif isinstance(proto := getattr(model, "model_proto", model), onnx.ModelProto):
        own.CopyFrom(proto)
        try:  # as onnx does, which copies models as bytes
            onnx.ModelProto.FromString(hollow(own).SerializeToString())
        except (pb.DecodeError, RecursionError) as error:
            raise ModelError("the model is nested deeper than a file can be") from error
    else:
        raise ModelError(f"a model is a path or an onnx.ModelProto, not {type(model).__name__}")
    return own


def _is_instance(value: object, module: str, name: str) -> bool:
    """isinstance without importing: an object's module has been imported by whoever made it."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)
