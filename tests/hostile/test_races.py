"""Runs that write a model and its data to one target, stopped where it would hurt most."""

import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxfuse
from onnxfuse import io
from onnxfuse.io.files import put
from tests.io.building import conv

FIRST, SECOND = (conv(np.full((8, 8, 3, 3), k, np.float32)) for k in (1, 2))
for model, producer in ((FIRST, "1"), (SECOND, "2")):
    model.producer_name = producer


def save(model, target):
    io.write(model, target, limit=1000)  # its data goes beside it


def whole(target):
    """The model that is there with its data, which must be its own."""
    loaded = onnx.load(target)
    kernel = numpy_helper.to_array(loaded.graph.initializer[0])
    np.testing.assert_array_equal(kernel, float(loaded.producer_name))
    return loaded.producer_name


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Rival:
    """Does something in a thread of its own, which may have to wait for a lock."""

    def __init__(self, monkeypatch, work):
        self.halted = threading.Event()
        self.error = None
        self._work = work
        self._thread = threading.Thread(target=self._run)
        lock = fcntl.flock

        def watched(descriptor, how):
            if threading.current_thread() is self._thread and how == fcntl.LOCK_EX:
                try:
                    lock(descriptor, how | fcntl.LOCK_NB)
                except BlockingIOError:
                    self.halted.set()
                else:
                    return
            lock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", watched)

    def _run(self):
        try:
            self._work()
        except Exception as error:
            self.error = error
        finally:
            self.halted.set()

    def until_it_waits_or_ends(self):
        self._thread.start()
        assert self.halted.wait(60)

    def end(self):
        self._thread.join(60)
        assert not self._thread.is_alive()


def at_move(monkeypatch, number, act):
    """Calls `act` in the middle of the moves: before the main thread's move of that number."""
    replace, moves = os.replace, []

    def watched(source, to):
        if threading.current_thread() is threading.main_thread():
            moves.append(to)
            if len(moves) == number:
                act()
        replace(source, to)

    monkeypatch.setattr(os, "replace", watched)


@pytest.mark.parametrize(
    ("old", "number"), [(False, 1), (False, 2), (True, 1), (True, 2), (True, 3), (True, 4)]
)
def test_another_save_between_the_moves_of_one(tmp_path, monkeypatch, old, number):
    target = tmp_path / "out.onnx"
    if old:
        save(FIRST, target)
        target.chmod(0o640)
    rival = Rival(monkeypatch, lambda: save(SECOND, target))
    at_move(monkeypatch, number, rival.until_it_waits_or_ends)
    save(FIRST, target)
    rival.end()
    assert rival.error is None
    assert whole(target) == "2"
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "out.onnx.data"]
    assert not old or stat.S_IMODE(target.stat().st_mode) == 0o640


def test_threads_leave_one_whole_pair(tmp_path):
    target = tmp_path / "out.onnx"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: save((FIRST, SECOND)[i % 2], target), range(64)))
    assert whole(target) in ("1", "2")
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "out.onnx.data"]


@pytest.mark.parametrize("number", [2, 3, 4])
def test_an_older_pair_set_aside_is_no_leftover(tmp_path, monkeypatch, number):
    """Whoever looks for leftovers must not take what another may have to put back."""
    target = tmp_path / "out.onnx"
    save(FIRST, target)

    def fails():
        yield b"half"
        raise OSError(28, "No space left on device")

    def write_both():
        for name in (target.with_name("out.onnx.data"), target):
            with pytest.raises(onnxfuse.ModelError, match="No space"):
                put(name, [(name, fails())])

    rival = Rival(monkeypatch, write_both)

    def act():
        rival.until_it_waits_or_ends()
        raise OSError(5, "Input/output error")

    at_move(monkeypatch, number, act)
    before = contents(tmp_path)
    with pytest.raises(onnxfuse.ModelError, match="Input/output"):
        save(SECOND, target)
    rival.end()
    assert rival.error is None
    assert contents(tmp_path) == before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize(("old", "moves"), [(False, 2), (True, 4)])
def test_what_fails_between_moves_is_undone(tmp_path, monkeypatch, error, old, moves):
    target = tmp_path / "out.onnx"
    if old:
        save(FIRST, target)
    before = contents(tmp_path)

    def fail():
        raise error

    for number in range(1, moves + 1):
        with monkeypatch.context() as patch:
            at_move(patch, number, fail)
            with pytest.raises((onnxfuse.ModelError, KeyboardInterrupt)):
                save(SECOND, target)
        assert contents(tmp_path) == before


KILLED = """
import os, signal, sys
from tests.hostile.test_races import SECOND, save
replace, left = os.replace, [int(sys.argv[2])]
def last(source, to):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, to)
os.replace = last
save(SECOND, sys.argv[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_killed_between_moves(tmp_path, number):
    target = tmp_path / "out.onnx"
    save(FIRST, target)
    command = [sys.executable, "-c", KILLED, target, str(number)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert any(name.endswith("-lock") for name in os.listdir(tmp_path))
    assert not target.exists() or whole(target) == "1"
    save(SECOND, target)
    assert whole(target) == "2"
    assert sorted(os.listdir(tmp_path)) == ["out.onnx", "out.onnx.data"]


def test_a_target_that_goes_while_it_is_looked_at(tmp_path, monkeypatch):
    target, given = tmp_path / "out.onnx", tmp_path / "in.onnx"
    given.write_bytes(b"input")

    def gone_before(function):
        def wrapped(path, *rest):
            target.unlink(missing_ok=True)
            return function(path, *rest)

        return wrapped

    for name in ("samefile", "isfile"):
        target.write_bytes(b"old")
        with monkeypatch.context() as patch:
            patch.setattr(os.path, name, gone_before(getattr(os.path, name)))
            assert io.check_target(target, given) == target
