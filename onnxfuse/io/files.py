"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfuse.errors import ModelError
from onnxfuse.io.temporary import hidden_name, remove_leftovers, temporary

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
    """Writes files that appear together, in order, or not at all.

    The last one refers to those before it. An older one goes before they are replaced, so nobody
    ever sees it with files that are not its own.
    """
    try:
        with ExitStack() as stack:
            moves: list[tuple[Path, Path]] = []
            for target, content in parts:
                remove_leftovers(target)
                moves.append((stack.enter_context(temporary(target, content)), target))
            if len(moves) > 1 and moves[-1][1].exists():
                stack.enter_context(_aside(moves[-1][1]))
            for file, target in moves:
                os.replace(file, target)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {one_line(error)}") from error


@contextmanager
def _aside(target: Path) -> Iterator[None]:
    """The target moved out of the way; back in its place if nothing new came there."""
    old = hidden_name(target)
    os.replace(target, old)
    try:
        yield
    finally:
        if target.exists():
            old.unlink(missing_ok=True)
        else:
            os.replace(old, target)
