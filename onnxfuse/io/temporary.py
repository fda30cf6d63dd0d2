"""Temporary files beside a target, and what processes that were killed left of them.

    .onnxfuse-<digest of the target's name>-<random>

A file is locked from before its first byte until it is moved or removed, and the lock goes with the
process. So a file of that name that nobody holds is a leftover, whatever process ids say.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl


def hidden_prefix(target: Path) -> str:
    """What the names of all files begin with that are made for the target."""
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()
    return f".onnxfuse-{digest[:16]}-"


def hidden_name(target: Path) -> Path:
    """A new name beside the target that is recognized as made for it."""
    return target.with_name(hidden_prefix(target) + secrets.token_hex(8))


@contextmanager
def temporary(target: Path, content: Iterable[bytes | memoryview]) -> Iterator[Path]:
    """A file beside the target with the content given; gone afterwards unless moved."""
    path = hidden_name(target)
    with ExitStack() as held:
        held.callback(path.unlink, missing_ok=True)
        handle = held.enter_context(_created(path))
        for chunk in content:
            handle.write(chunk)
        handle.flush()
        os.fsync(handle.fileno())
        if sys.platform == "win32":  # an open file cannot be moved there
            handle.close()
        yield path


def remove_leftovers(target: Path) -> None:
    """Removes temporary files that dead processes left beside the target, made for it alone.

    Where files cannot be locked, or the folder cannot be listed, they stay.
    """
    if sys.platform == "win32":
        return
    name = re.compile(re.escape(hidden_prefix(target)) + "[0-9a-f]{16}")
    with suppress(PermissionError):
        for path in [
            Path(entry) for entry in os.scandir(target.parent) if name.fullmatch(entry.name)
        ]:
            with suppress(OSError):
                remove_unheld(path)


def remove_unheld(path: Path) -> None:
    """Removes a plain file that is this user's and that nobody has locked; else raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_named(descriptor, path):  # else the name is another file's by now
                path.unlink()
    finally:
        os.close(descriptor)


def is_named(descriptor: int, path: Path) -> bool:
    """Whether the path names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _created(path: Path) -> BinaryIO:
    """A new file, locked; made again where somebody took it for a leftover before it was."""
    while True:
        handle = open(path, "xb")  # noqa: SIM115 - whoever called closes it
        if sys.platform == "win32":
            return handle
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if is_named(handle.fileno(), path):
            return handle
        handle.close()
