"""Exported programs (.pt2), read so that nothing in them runs.

torch.export.load takes what a file brings: it falls back to the full unpickler, evaluates size
expressions as Python and executes guards. So it never sees the file itself. The parts that
torch.export.save writes for plain programs are checked, and put into an archive of our own: what is
pickled has to load with weights_only=True, sizes are arithmetic, guards are left out.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError
from onnxfuse.exporter.pytorch import quiet, require, said

_ROOT = "program"
_PLAIN = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|models/model\.json|extra/.*"
    r"|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)
_CONFIG = re.compile(r"data/(weights|constants)/model_(weights|constants)_config\.json")
_EXAMPLES = "data/sample_inputs/model.pt"
_GRAPH = "models/model.json"

_FUNCTIONS = frozenset(
    {"Symbol", "Integer", "Float", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod"}
    | {"FloorDiv", "CeilDiv", "CleanDiv", "IntTrueDiv", "FloatTrueDiv", "ModularIndexing"}
    | {"Eq", "Ne", "Le", "Lt", "Ge", "Gt", "And", "Or", "Not", "Where", "Identity"}
    | {"TruncToInt", "CeilToInt", "FloorToInt", "RoundToInt", "ToFloat"}
)
_ARITHMETIC = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.Name,
    ast.Load,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
)
_LARGEST_NUMBER = 1 << 63
_LARGEST_EXPONENT = 16


def load_program(path: Path) -> Any:
    """The torch.export.ExportedProgram in a file.

    Raises:
        ModelError: The file cannot be read, is no such archive, is damaged, or holds something that
            would run.
    """
    torch = require()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            plain = _plain_copy(path, archive)
    except ModelError:
        raise
    except Exception as error:  # zipfile and json raise anything on a file that is damaged
        raise ModelError(f"{path}: not a program of torch.export.save: {said(error)}") from error
    with quiet():
        try:
            return torch.export.load(plain)
        except Exception as error:  # and so does torch
            raise ModelError(f"{path}: torch.export.load failed: {said(error)}") from error


def _plain_copy(path: Path, archive: zipfile.ZipFile) -> io.BytesIO:
    """The archive anew, of parts that have been checked."""
    names = archive.namelist()
    roots = {name.partition("/")[0] for name in names}
    if len(roots) != 1 or len(set(names)) < len(names):
        raise ModelError(f"{path}: not a program of torch.export.save")
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as plain:
        for name in names:
            part = name.partition("/")[2]
            content = archive.read(name)
            if _CONFIG.fullmatch(part):
                _check_config(path, content)
            elif part == _EXAMPLES:
                _check_examples(path, content)
            elif part == _GRAPH:
                content = _without_guards(path, content)
            elif not _PLAIN.fullmatch(part):
                raise ModelError(f"{path}: {part} is no plain part of a program; it is not loaded")
            plain.writestr(f"{_ROOT}/{part}", content)
    copy.seek(0)
    return copy


def _check_config(path: Path, content: bytes) -> None:
    for name, member in json.loads(content)["config"].items():
        if member["use_pickle"] is not False:
            raise ModelError(f"{path}: {name!r} is pickled; it is not unpickled")


def _check_examples(path: Path, content: bytes) -> None:
    try:
        require().load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # the unpickler raises anything
        raise ModelError(
            f"{path}: its example inputs are more than tensors; they are not unpickled"
        ) from error


def _without_guards(path: Path, content: bytes) -> bytes:
    """The graph without guards, which torch would execute, and with arithmetic alone for sizes."""
    graph = json.loads(content)
    graph["guards_code"] = []
    for text in _expressions(graph):
        if not isinstance(text, str) or not _is_arithmetic(ast.parse(text, mode="eval")):
            raise ModelError(f"{path}: a size is no arithmetic; it is not evaluated")
    return json.dumps(graph).encode()


def _expressions(value: Any) -> Iterator[Any]:
    """Every expression for a size in the graph."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "expr_str":
                yield inner
            else:
                yield from _expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _expressions(inner)


def _is_arithmetic(node: ast.AST) -> bool:
    """True for numbers, names, arithmetic on them, and calls of sympy's and torch's own functions.

    A text is allowed as the name of a Symbol alone, and keywords take True or False.
    """
    if isinstance(node, ast.Constant):
        return isinstance(node.value, (bool, int, float)) and abs(node.value) <= _LARGEST_NUMBER
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _FUNCTIONS:
            return False
        arguments = list(node.args)
        if node.func.id == "Symbol":
            named = arguments and isinstance(arguments[0], ast.Constant)
            if not named or not str(ast.literal_eval(arguments.pop(0))).isidentifier():
                return False
        flags = [k.value for k in node.keywords if k.arg is not None]
        return len(flags) == len(node.keywords) and all(map(_is_arithmetic, [*arguments, *flags]))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        exponent = node.right
        if not isinstance(exponent, ast.Constant) or not isinstance(exponent.value, int):
            return False
        if abs(exponent.value) > _LARGEST_EXPONENT:
            return False
    return isinstance(node, _ARITHMETIC) and all(map(_is_arithmetic, ast.iter_child_nodes(node)))
