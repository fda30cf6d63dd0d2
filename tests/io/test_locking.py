import errno
import fcntl
import os
import threading

import pytest

from onnxfuse import io
from onnxfuse.io.locking import locked
from onnxfuse.io.temporary import hidden_prefix


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out.onnx"


@pytest.fixture
def lock(target):
    """The file that is locked while files move to the target."""
    return target.with_name(hidden_prefix(target) + "lock")


def is_free(path):
    """Whether another could lock the file now."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def test_a_lock_is_for_one_target_and_leaves_nothing(tmp_path, target, lock):
    with locked(target), locked(tmp_path / "other.onnx"):
        assert not is_free(lock)
        assert len(os.listdir(tmp_path)) == 2
    assert os.listdir(tmp_path) == []


def test_a_file_that_a_dead_process_left_is_taken_and_removed(tmp_path, target, lock):
    lock.touch()
    with locked(target):
        assert not is_free(lock)
    assert os.listdir(tmp_path) == []


def test_a_lock_on_a_file_that_lost_its_name_meanwhile_is_none(target, lock, monkeypatch):
    plain, tries = fcntl.flock, []

    def late(descriptor, how):
        if how == fcntl.LOCK_EX and len(tries) < 2:
            lock.unlink()
            if tries:
                lock.touch()  # the name is another file's
            tries.append(how)
        plain(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(target):
        assert len(tries) == 2
        assert not is_free(lock)
    assert not lock.exists()


def test_many_threads_have_it_one_after_the_other(tmp_path, target):
    inside, most = [], []

    def enter():
        for _ in range(25):
            with locked(target):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 200
    assert os.listdir(tmp_path) == []


def test_a_process_that_was_forked_meanwhile_does_not_keep_it(target, lock, monkeypatch):
    plain, forked = fcntl.flock, []

    def shared(descriptor, how):
        plain(descriptor, how)
        if not forked:
            forked.append(os.dup(descriptor))  # as a forked process has it

    monkeypatch.setattr(fcntl, "flock", shared)
    with locked(target):
        waiting = os.open(lock, os.O_RDWR)
    try:
        plain(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(waiting)
        os.close(forked[0])


@pytest.mark.parametrize("module", [os, fcntl])
def test_a_signal_while_the_lock_is_taken_leaves_nothing(tmp_path, target, monkeypatch, module):
    name = {os: "open", fcntl: "flock"}[module]
    plain, calls = getattr(module, name), []

    def stopped(*arguments):
        calls.append(plain(*arguments))
        if len(calls) == 1:
            raise KeyboardInterrupt
        return calls[-1]

    with monkeypatch.context() as patch:
        patch.setattr(module, name, stopped)
        with pytest.raises(KeyboardInterrupt), locked(target):
            pytest.fail("it went on")
    assert os.listdir(tmp_path) == []
    with locked(target):
        pass


def test_what_stands_in_its_place_is_left_alone(tmp_path, target, lock):
    other = tmp_path / "other"
    lock.symlink_to(other)
    io.write_text("one", target)
    assert lock.is_symlink()
    assert not other.exists()
    lock.unlink()
    lock.mkdir()
    io.write_text("two", target)
    lock.rmdir()
    os.mkfifo(lock)
    io.write_text("three", target)
    assert lock.is_fifo()
    assert target.read_text() == "three"


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_systems_without_locks_are_written_to(tmp_path, target, monkeypatch, error):
    def none(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", none)
    io.write_text("text", target)
    assert target.read_text() == "text"
    assert os.listdir(tmp_path) == ["out.onnx"]
