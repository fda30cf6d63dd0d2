"""The program stopped at any moment: its output is absent or complete, and nothing else is left."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxfuse import io
from onnxfuse.io.temporary import hidden_name, remove_leftovers, temporary
from tests.io.building import build, external, no_leftovers

COMMAND = [sys.executable, "-m", "onnxfuse", "optimize", "-q"]


def big_model(megabytes):
    """A chain of MatMuls whose weights take a while to write."""
    rng = np.random.default_rng(0)
    count = megabytes // 4
    weights = [
        numpy_helper.from_array(rng.standard_normal((1024, 1024)).astype(np.float32), f"w{i}")
        for i in range(count)
    ]
    nodes = []
    for i in range(count):
        nodes.append(helper.make_node("MatMul", [f"t{i}", f"w{i}"], [f"m{i}"]))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"t{i + 1}"]))
    ends = [helper.make_tensor_value_info(n, 1, ("N", 1024)) for n in ("t0", f"t{count}")]
    return build(nodes, ends[:1], ends[1:], weights)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def heed_interrupts():
    """In the child: what a shell starts in the background ignores them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(path, out):
    command = [*COMMAND, str(path), "-o", str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, preexec_fn=heed_interrupts)


def wait_for_writing(process, folder):
    """Waits until a temporary file with something in it is there."""
    while process.poll() is None:
        hidden = [name for name in os.listdir(folder) if name.startswith(".onnxfuse-")]
        if any(not name.endswith("-lock") for name in hidden):
            return
        time.sleep(0.0005)


def kill_many(folder, outside, times):
    folder.mkdir()
    model = big_model(32)
    path, out = folder / "net.onnx", folder / "out.onnx"
    if outside:
        external(model, folder)
    else:
        path.write_bytes(model.SerializeToString())
    given = contents(folder)
    begin = time.monotonic()
    subprocess.run([*COMMAND, str(path), "-o", str(out)], check=True)
    whole = time.monotonic() - begin
    finished = contents(folder)
    rng, torn = random.Random(5), 0
    for number in range(times):
        if number % 3 == 0:
            for name in finished.keys() - given.keys():
                (folder / name).unlink(missing_ok=True)
        process = start(path, out)
        if number % 4:
            wait_for_writing(process, folder)
            time.sleep(rng.random() * whole / 4)
        else:
            time.sleep(rng.random() * whole)
        process.kill()
        process.wait()
        process.stderr.close()
        left = contents(folder)
        hidden = {name for name in left if name.startswith(".onnxfuse-")}
        torn += bool(hidden)
        assert {name: left[name] for name in given} == given
        assert left.keys() - hidden <= finished.keys()
        for name in left.keys() - hidden:
            assert left[name] == finished[name]
        assert "out.onnx" not in left or left.keys() - hidden == finished.keys()
        subprocess.run([*COMMAND, str(path), "-o", str(out)], check=True)
        assert contents(folder) == finished
    assert torn or times < 20  # some were hit while writing


@pytest.mark.slow
@pytest.mark.parametrize(
    "outside",
    [
        pytest.param(False, id="one file", marks=pytest.mark.nightly),
        pytest.param(True, id="data beside it"),
    ],
)
def test_killed_at_some_moments(tmp_path, outside):
    kill_many(tmp_path / "net", outside, 4)


@pytest.mark.nightly
@pytest.mark.parametrize("outside", [False, True], ids=["one file", "data beside it"])
def test_killed_at_many_moments(tmp_path, outside):
    kill_many(tmp_path / "net", outside, 100)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 2)], ids=str
)
def test_a_signal_while_writing_leaves_nothing(tmp_path, number, code):
    path, out = tmp_path / "net.onnx", tmp_path / "out.onnx"
    path.write_bytes(big_model(128).SerializeToString())
    given = contents(tmp_path)
    stopped = 0
    for _ in range(3):
        process = start(path, out)
        wait_for_writing(process, tmp_path)
        process.send_signal(number)
        _, said = process.communicate()
        if process.returncode:
            assert process.returncode == code
            assert b"Traceback" not in said
            assert contents(tmp_path) == given
            stopped += 1
        out.unlink(missing_ok=True)
    assert stopped


# Leftovers ---------------------------------------------------------------------------------------


def test_only_leftovers_for_the_same_target_that_nobody_holds_are_removed(tmp_path):
    target, other = tmp_path / "out.onnx", tmp_path / "other.onnx"
    leftover = hidden_name(target)
    leftover.write_bytes(b"half")
    kept = [hidden_name(other), tmp_path / (leftover.name + "x"), tmp_path / ".onnxfuse-mine"]
    for path in kept:
        path.write_bytes(b"not ours")
    linked = hidden_name(target)
    linked.symlink_to(kept[0])
    with temporary(target, [b"of a run at work"]) as held:
        io.write_text("report", target)
        assert held.read_bytes() == b"of a run at work"
    assert target.read_text() == "report"
    assert not leftover.exists()
    assert not held.exists()
    assert linked.is_symlink()
    assert all(path.read_bytes() == b"not ours" for path in kept)


def test_a_name_taken_anew_is_not_the_leftover_that_was_seen_under_it(tmp_path, monkeypatch):
    target = tmp_path / "out.onnx"
    path = hidden_name(target)
    path.write_bytes(b"half")
    lock = fcntl.flock

    def late(descriptor, how):
        path.unlink()
        path.write_bytes(b"of a run at work")
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    remove_leftovers(target)
    assert path.read_bytes() == b"of a run at work"


def test_an_older_model_never_stands_beside_newer_data(tmp_path, monkeypatch):
    target = tmp_path / "out.onnx"
    model = big_model(4)
    io.write(model, target, limit=1000)
    before = contents(tmp_path)
    replace, seen = os.replace, []

    def watched(source, to):
        replace(source, to)
        seen.append(target.exists())
        if len(seen) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", watched)
    changed = big_model(4)
    changed.graph.node[0].name = "another"
    with pytest.raises(io.files.ModelError, match="No space left"):
        io.write(changed, target, limit=1000)
    assert seen[:2] == [False, False]
    assert no_leftovers(tmp_path)
    assert contents(tmp_path).keys() == before.keys()
