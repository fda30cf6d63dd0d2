"""Exported programs (.pt2), read without unpickling anything but tensors.

torch.export.load falls back to the full unpickler, which runs code that a file brings along. So the
archive is looked through first: only the parts that torch.export.save writes for plain programs may
be in it, and what is pickled must load with weights_only=True.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError
from onnxfuse.exporter.pytorch import quiet, require, said

_PLAIN = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|models/model\.json|extra/.*"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)
_CONFIG = re.compile(r"data/(weights|constants)/model_(weights|constants)_config\.json")
_EXAMPLES = "data/sample_inputs/model.pt"


def load_program(path: Path) -> Any:
    """The torch.export.ExportedProgram in a file.

    Raises:
        ModelError: The file cannot be read, is no such archive, or holds what would have to be
            unpickled or is compiled.
    """
    torch = require()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check(path, archive)
    except (zipfile.BadZipFile, UnicodeDecodeError, json.JSONDecodeError, KeyError) as error:
        raise ModelError(f"{path}: not a program of torch.export.save: {said(error)}") from error
    with quiet():
        try:
            return torch.export.load(io.BytesIO(data))
        except Exception as error:  # torch raises anything on an archive that is damaged
            raise ModelError(f"{path}: torch.export.load failed: {said(error)}") from error


def _check(path: Path, archive: zipfile.ZipFile) -> None:
    torch = require()
    names = [info.filename for info in archive.infolist()]
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1 or len(set(names)) < len(names):
        raise ModelError(f"{path}: not a program of torch.export.save")
    for name in names:
        part = name.partition("/")[2]
        if _CONFIG.fullmatch(part):
            members = json.loads(archive.read(name))["config"]
            pickled = next((key for key, meta in members.items() if meta["use_pickle"]), None)
            if pickled is not None:
                raise ModelError(f"{path}: {pickled!r} is pickled; it is not unpickled")
        elif part == _EXAMPLES:
            try:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True)
            except Exception as error:  # the unpickler raises anything
                raise ModelError(
                    f"{path}: its example inputs are more than tensors; they are not unpickled"
                ) from error
        elif not _PLAIN.fullmatch(part):
            raise ModelError(f"{path}: {part} is no plain part of a program; it is not loaded")
