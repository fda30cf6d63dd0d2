"""Several threads at once, and what calling the API leaves as it was."""

import contextlib
import gc
import io
import logging
import os
import random
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

import onnxfuse
from tests.hostile.seeds import SEEDS


def optimized(model):
    result = onnxfuse.optimize(model)
    return result.model.SerializeToString(), result.report.to_json()


@pytest.mark.slow
def test_threads_get_what_they_get_alone(tmp_path):
    alone = {name: optimized(model) for name, model in SEEDS.items()}
    paths = {}
    for name, model in SEEDS.items():
        paths[name] = tmp_path / f"{name}.onnx"
        paths[name].write_bytes(model.SerializeToString())
    jobs = [name for name in SEEDS for _ in range(4)]
    random.Random(1).shuffle(jobs)
    with ThreadPoolExecutor(8) as pool:
        given = [SEEDS[n] if i % 2 else paths[n] for i, n in enumerate(jobs)]
        for name, got in zip(jobs, pool.map(optimized, given), strict=True):
            assert got == alone[name], name


def test_threads_that_write_to_one_file_leave_one_whole_file(tmp_path):
    target = tmp_path / "out.onnx"
    results = [onnxfuse.optimize(SEEDS[name]) for name in ("branches", "layers")]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: results[i % 2].save(target), range(64)))
    assert os.listdir(tmp_path) == ["out.onnx"]
    assert target.read_bytes() in [r.model.SerializeToString() for r in results]


def test_a_model_given_to_many_threads_is_not_changed():
    model = onnx.ModelProto()
    model.CopyFrom(SEEDS["branches"])
    with ThreadPoolExecutor(8) as pool:
        got = set(pool.map(optimized, [model] * 16))
    assert len(got) == 1
    assert model == SEEDS["branches"]


def state():
    """Whatever of the process a library could change without being asked."""
    root = logging.getLogger()
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "filters": list(warnings.filters),
        "logging": (root.level, list(root.handlers), logging.root.manager.disable),
        "numpy": np.geterr(),
        "print options": str(np.get_printoptions()),
        "gc": (gc.isenabled(), gc.get_threshold()),
        "signals": {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)},
        "random": random.getstate(),
        "numpy random": str(np.random.get_state()),
        "threads": threading.active_count(),
    }


def test_the_api_changes_nothing_of_the_process_and_prints_nothing(tmp_path, capfd):
    path = tmp_path / "net.onnx"
    path.write_bytes(SEEDS["branches"].SerializeToString())
    onnxfuse.optimize(path)
    before = state()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        for model in (path, *SEEDS.values()):
            result = onnxfuse.optimize(model)
        result.save(tmp_path / "out.onnx")
        result.save_report(tmp_path / "out.html")
        onnxfuse.check(path, threads=1)
        onnxfuse.bench([path], rounds=2, threads=1)
        with contextlib.suppress(onnxfuse.ModelError):
            onnxfuse.optimize(tmp_path / "missing.onnx")
    assert state() == before
    assert out.getvalue() == ""
    assert capfd.readouterr() == ("", "")
