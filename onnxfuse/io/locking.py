"""The right to move files to a target, which one thread of one process has at a time.

    .onnxfuse-<digest of the target's name>-lock

is there while somebody has that right or waits for it, and is removed when nobody does. Who waited
may then get the lock of a file that has lost its name, and asks again. The lock goes with the
process; a file that was left behind is taken by whoever comes next, and removed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onnxfuse.io.temporary import hidden_prefix, is_named, remove_unheld

if sys.platform != "win32":
    import fcntl


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Waits until nobody else moves files to the target, and keeps others waiting.

    Where files cannot be locked, or none can be made in the folder, nobody waits.
    """
    if sys.platform == "win32":
        yield
        return
    path = target.with_name(hidden_prefix(target) + "lock")
    opened: list[int] = []
    try:
        with suppress(OSError):
            _take(path, opened)
        yield
    finally:  # an exception may come at any moment, from a signal
        for descriptor in opened:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked process may have it open too
            os.close(descriptor)
        with suppress(OSError):
            remove_unheld(path)


def _take(path: Path, opened: list[int]) -> None:
    """Locks a file of that name; `opened` takes descriptors, the last of them the locked one."""
    while True:
        how = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        opened.append(os.open(path, how, 0o666))
        try:
            fcntl.flock(opened[-1], fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            path.unlink(missing_ok=True)
            raise
        if is_named(opened[-1], path):
            return
        fcntl.flock(opened[-1], fcntl.LOCK_UN)
