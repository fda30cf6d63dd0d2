"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfuse.errors import ModelError
from onnxfuse.io.locking import locked
from onnxfuse.io.temporary import hidden_name, remove_leftovers, temporary

if TYPE_CHECKING:
    from typing import TypeAlias

    AnyPath: TypeAlias = str | os.PathLike[str]
    Content: TypeAlias = Iterable[bytes | memoryview]


PROTOBUF_LIMIT = (1 << 31) - 1
"""Bytes that one protobuf message, and so one .onnx file, can hold."""

_CHUNK = 1 << 20


def one_line(error: Exception) -> str:
    """What an exception says, in one line."""
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(what.split())


def content_of(path: Path) -> bytes:
    """What a file holds, or what comes through a pipe.

    Raises:
        ModelError: It is a device, or more than a protobuf message can be.
        OSError: It cannot be read.
    """
    status = path.stat()
    if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        raise ModelError(f"{path}: a device, not a file")
    if status.st_size <= PROTOBUF_LIMIT:
        if stat.S_ISREG(status.st_mode):
            return path.read_bytes()  # protobuf would copy a mapped file
        with path.open("rb", buffering=0) as pipe:
            data = bytearray()
            while len(data) <= PROTOBUF_LIMIT and (chunk := pipe.read(_CHUNK)):
                data += chunk
        if len(data) <= PROTOBUF_LIMIT:
            return bytes(data)
    raise ModelError(f"{path}: the file is larger than 2 GiB")


def check_target(path: AnyPath, *inputs: AnyPath) -> Path:
    """The file that `path` names, if it can be written to.

    Raises:
        ModelError: It is one of the `inputs`, there is no such folder, or it is no plain file.
    """
    if "\0" in str(path):
        raise ModelError(f"{path!r} is no name of a file")
    target = Path(os.path.realpath(path))
    if not os.path.isdir(target.parent):
        raise ModelError(f"{path}: there is no folder {target.parent}")
    for given in inputs:
        if target == Path(given) or _is_same(target, given):
            raise ModelError(f"{path} is an input file: it will not be replaced")
    try:
        mode = _mode(target)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {one_line(error)}") from error
    if mode is not None and not stat.S_ISREG(mode):
        raise ModelError(f"{path} is a folder, or something else that is no plain file")
    return target


def data_name(target: Path) -> Path:
    """Where the data of a model goes that does not stay in its file."""
    return target.with_name(target.name + ".data")


def check_data_target(target: Path, *inputs: AnyPath) -> Path:
    """The file that the data of a model goes to, if it can be written to.

    Raises:
        ModelError: As `check_target`, or its name is a link out of the model's folder.
    """
    name = data_name(target)
    beside = check_target(name, *inputs)
    if beside.parent != target.parent or beside == target:
        raise ModelError(f"{name} is a link to {beside}, which is not beside the model")
    return beside


def write_text(text: str, path: AnyPath, *inputs: AnyPath) -> None:
    """Writes a text file, whole or not at all; raises ModelError as `check_target` does."""
    put(path, [(check_target(path, *inputs), [text.encode()])])


@contextmanager
def texts_behind(texts: Mapping[Path, str], *inputs: AnyPath) -> Iterator[None]:
    """Text files that are there, whole, behind what is done in between; none where that fails.

    Raises:
        ModelError: As `check_target`, or one of them cannot be written: before anything is done.
    """
    with ExitStack() as stack:
        moves: list[tuple[Path, Path, Path]] = []
        for path, text in texts.items():
            target = check_target(path, *inputs)
            with _told(path):
                with locked(target):
                    remove_leftovers(target)
                file = stack.enter_context(temporary(target, [text.encode()]))
            moves.append((path, file, target))
        yield
        for path, file, target in moves:
            with _told(path), locked(target):
                _move([(file, target)])


@contextmanager
def _told(path: AnyPath) -> Iterator[None]:
    """Says of what the system refuses which file it was for."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {one_line(error)}") from error


def put(path: AnyPath, parts: Iterable[tuple[Path, Content]]) -> None:
    """Writes files that appear together, in order, or not at all.

    The last one refers to those before it. An older one goes before they are replaced, so nobody
    ever sees it with files that are not its own. Of several runs that write it at the same time,
    each waits with its moves until the moves of another are done.
    """
    with _told(path), ExitStack() as stack:
        moves: list[tuple[Path, Path]] = []
        for target, content in parts:
            with locked(target):
                remove_leftovers(target)
            moves.append((stack.enter_context(temporary(target, content)), target))
        with locked(moves[-1][1]):
            _move(moves)


def _move(moves: list[tuple[Path, Path]]) -> None:
    """Moves files to their targets, all or none, with the permissions of what was there."""
    last_file, last = moves[-1]
    aside: list[tuple[Path, Path]] = []
    try:
        for file, target in reversed(moves):
            if (mode := _mode(target)) is not None:
                file.chmod(stat.S_IMODE(mode))
                if len(moves) > 1:
                    aside.append((hidden_name(last), target))
                    os.replace(target, aside[-1][0])
        for file, target in moves:
            os.replace(file, target)
    finally:
        if last_file.exists():  # it did not get there: all back
            for file, target in moves:
                if not file.exists():
                    target.unlink(missing_ok=True)
            for old, target in reversed(aside):
                with suppress(FileNotFoundError):
                    os.replace(old, target)
        else:
            for old, _ in aside:
                old.unlink(missing_ok=True)


def _mode(path: Path) -> int | None:
    """Kind and permissions of a file; None where there is none."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _is_same(path: Path, other: AnyPath) -> bool:
    """Whether both are there, and one file."""
    try:
        return os.path.samefile(path, other)
    except (OSError, ValueError):
        return False
