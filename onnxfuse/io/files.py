"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfuse.errors import ModelError

if TYPE_CHECKING:
    from typing import TypeAlias

    AnyPath: TypeAlias = str | os.PathLike[str]
    Content: TypeAlias = Iterable[bytes | memoryview]


def one_line(error: Exception) -> str:
    """What an exception says, in one line."""
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(what.split())


def check_target(path: AnyPath, *inputs: AnyPath) -> Path:
    """The file that `path` names, if it can be written to.

    Raises:
        ModelError: It is one of the `inputs`, there is no such folder, or it is no plain file.
    """
    target = Path(os.path.realpath(path))
    if not os.path.isdir(target.parent):
        raise ModelError(f"{path}: there is no folder {target.parent}")
    for given in inputs:
        both = os.path.exists(target) and os.path.exists(given)
        if target == Path(given) or (both and os.path.samefile(target, given)):
            raise ModelError(f"{path} is an input file: it will not be replaced")
    try:
        target.stat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {one_line(error)}") from error
    if os.path.exists(target) and not os.path.isfile(target):
        raise ModelError(f"{path} is a folder, or something else that is no plain file")
    return target


def write_text(text: str, path: AnyPath, *inputs: AnyPath) -> None:
    """Writes a text file, whole or not at all; raises ModelError as `check_target` does."""
    put(path, [(check_target(path, *inputs), [text.encode()])])


def put(path: AnyPath, parts: Iterable[tuple[Path, Content]]) -> None:
    """Writes files that appear together, in order, or not at all."""
    try:
        with ExitStack() as stack:
            moves = [(stack.enter_context(_temporary(*part)), part[0]) for part in parts]
            for file, target in moves:
                os.replace(file, target)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {one_line(error)}") from error


@contextmanager
def _temporary(target: Path, content: Content) -> Iterator[Path]:
    """A file beside the target with the content given; gone afterwards unless moved."""
    path = target.with_name(f".onnxfuse-{secrets.token_hex(8)}")
    try:
        with open(path, "xb") as handle:
            for chunk in content:
                handle.write(chunk)
            handle.flush()
            os.fsync(handle.fileno())
        if target.exists():
            path.chmod(stat.S_IMODE(target.stat().st_mode))
        yield path
    finally:
        path.unlink(missing_ok=True)
