"""`onnxfuse.bench`: what it is given and what it gives."""

import importlib
import json
import math
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnxfuse
from onnxfuse import ModelError, OnnxfuseError
from onnxfuse.benchmark import measuring
from tests.benchmark.building import (
    image_net,
    lookup,
    one_node,
    quick,
    reshaped,
    save,
    sequence_length,
)

FIXED = image_net(1, 4, 8, 8)
OPEN = image_net("batch", 4, "height", "width")


@pytest.fixture
def fed(monkeypatch):
    """Everything that sessions are given to be timed."""
    seen = []
    original = measuring.caller

    def spy(session, feeds):
        seen.append((session.name, feeds))
        return original(session, feeds)

    monkeypatch.setattr(measuring, "caller", spy)
    return seen


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """What else runs on the machine that runs the tests is not their subject."""
    monkeypatch.setattr(measuring.Others, "note", lambda self: "")


def finite(interval):
    return 0 < interval.low <= interval.value <= interval.high < math.inf


def test_what_is_measured(tmp_path):
    path = save(tmp_path / "a.onnx", FIXED)
    result = onnxfuse.bench([path, FIXED], rounds=12, threads=1, profile=True)
    first, second = result.timings
    assert (first.model, second.model) == (str(path), "model 2")
    for timing in result.timings:
        assert timing.provider == "cpu"
        assert timing.shapes == {"x": (1, 4, 8, 8)}
        assert timing.batch == 1
        assert finite(timing.latency)
        assert finite(timing.ratio)
        assert timing.throughput == pytest.approx(1 / timing.latency.value)
        assert timing.session_seconds > 0
        assert len(timing.seconds) == 12
        assert sum(timing.operators.values()) == pytest.approx(1)
        assert "Conv" in " ".join(timing.operators)
        assert timing.peak_memory is None or timing.peak_memory > 0
    assert (first.ratio.low, first.ratio.value, first.ratio.high) == (1, 1, 1)
    ratios = [a / b for a, b in zip(first.seconds, second.seconds, strict=True)]
    assert second.ratio.value == pytest.approx(np.median(ratios))
    assert (result.threads, result.optimization) == (1, "all")
    assert {"processor", "cores", "system", "onnxruntime"} <= set(result.machine)
    assert result.notes == ()


def test_the_result_as_json():
    result = quick({"a": FIXED, "b": FIXED})
    data = json.loads(result.to_json(), parse_constant=pytest.fail)
    assert [timing["model"] for timing in data["timings"]] == ["a", "b"]
    assert data["timings"][0]["shapes"] == {"x": [1, 4, 8, 8]}
    assert set(data["timings"][0]["latency"]) == {"value", "low", "high"}
    assert data["machine"] == dict(result.machine)


def test_one_model_alone():
    (timing,) = quick(FIXED).timings
    assert timing.model == "model 1"


def test_all_models_get_the_same_arrays(fed):
    quick({"a": OPEN, "b": OPEN, "c": FIXED}, sizes={"height": 8, "width": 8})
    given = {name: feeds["x"] for name, feeds in fed}
    assert set(given) == {"a", "b", "c"}
    assert given["a"] is given["b"] is given["c"]


def test_inputs_match_by_name_whatever_their_order():
    shapes = [2, 3], [3, 4]
    product = one_node("MatMul", TensorProto.FLOAT, *shapes)
    turned = onnx.ModelProto.FromString(product.SerializeToString())
    turned.graph.input.reverse()
    first, second = quick([product, turned]).timings
    assert first.shapes == second.shapes == {"a": (2, 3), "b": (3, 4)}


def test_inputs_match_in_order_where_names_differ(fed):
    quick({"a": FIXED, "b": image_net(1, 4, "h", "w", name="picture")})
    arrays = dict(fed)
    assert arrays["a"]["x"] is arrays["b"]["picture"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (image_net(1, 4, 9, 9), "input 'x' float32 1x4x9x9 cannot take the float32 1x4x8x8"),
        (image_net(1, 4, 9, 9, name="z"), r"its inputs \('z' float32 1x4x9x9\) do not match"),
        (one_node("Neg", TensorProto.FLOAT, [4]), "do not match"),
        (one_node("Neg", TensorProto.INT32, [1, 4, 8, 8]), "int32 1x4x8x8"),
        (one_node("Add", TensorProto.FLOAT, [1, 4, 8, 8], [1]), "do not match"),
    ],
)
def test_models_that_take_something_else(other, said):
    with pytest.raises(ModelError, match=f"^b: .*{said}"):
        quick({"a": FIXED, "b": other})


# Sizes -------------------------------------------------------------------------------------------


def test_symbolic_extents_are_1_and_224():
    (timing,) = quick(image_net("n", 4, "h", "w")).timings
    assert timing.shapes == {"x": (1, 4, 224, 224)}


def test_sizes_and_batches():
    result = quick({"a": OPEN, "b": OPEN}, batches=(1, 3, 3), sizes={"height": 8, "width": 9})
    found = [(t.model, t.batch, t.shapes["x"]) for t in result.timings]
    assert found == [
        ("a", 1, (1, 4, 8, 9)),
        ("b", 1, (1, 4, 8, 9)),
        ("a", 3, (3, 4, 8, 9)),
        ("b", 3, (3, 4, 8, 9)),
    ]
    assert all(t.throughput == pytest.approx(t.batch / t.latency.value) for t in result.timings)


def test_a_model_that_runs_at_few_sizes_is_tried_at_others():
    (timing,) = quick(reshaped(8, 8)).timings
    assert timing.shapes == {"x": (1, 64)}
    (timing,) = quick(reshaped(2, 64)).timings
    assert timing.shapes == {"x": (2, 64)}


def test_indices_that_are_too_large_are_tried_smaller():
    (timing,) = quick(lookup(2)).timings
    assert timing.shapes == {"index": (1, 224)}


def test_a_fixed_batch_may_be_asked_for():
    assert [t.batch for t in quick(FIXED, batches=[1]).timings] == [1]


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (FIXED, {"batches": [8]}, "the batch is fixed at 1: it cannot be 8"),
        (FIXED, {"batches": [0]}, "batch size 0 is not positive"),
        (FIXED, {"sizes": {"height": 8}}, "no input has a symbolic dimension 'height'"),
        (OPEN, {"batches": [2], "sizes": {"batch": 3}}, "batch size 2 and size batch=3 contradict"),
        (one_node("Neg", TensorProto.FLOAT, []), {"batches": [2]}, "no input has a batch axis"),
        (reshaped(7, 1009), {}, r"tried batch=1,width=224; .*: give sizes at which it runs"),
        (reshaped(8, 8), {"sizes": {"batch": 1, "width": 5}}, "Reshape"),
        (sequence_length(), {}, "input 's' is no tensor"),
        (FIXED, {"providers": ["cuda"]}, "onnxruntime-gpu brings it"),
        (FIXED, {"providers": ["warp"]}, "knows no provider 'warp'"),
        (FIXED, {"providers": []}, "no execution provider"),
        (FIXED, {"optimization": "most"}, "optimization 'most' is none of off, basic"),
        (FIXED, {"threads": 0}, "threads must be at least 1, not 0"),
        (FIXED, {"rounds": 0}, "rounds must be at least 1, not 0"),
        (FIXED, {"warm_up": -1}, "warm_up must not be negative"),
        (FIXED, {"inputs": "a.npz", "batches": [1]}, "leave out batches and sizes"),
        ([], {}, "no model is given"),
        ("missing.onnx", {}, "missing.onnx: cannot be read"),
    ],
)
def test_what_cannot_be_measured(model, options, said):
    import onnxruntime

    if options.get("providers") == ["cuda"] and "CUDAExecutionProvider" in (
        onnxruntime.get_available_providers()
    ):
        pytest.skip("this build of ONNX Runtime has CUDA")
    with pytest.raises(OnnxfuseError, match=said) as caught:
        quick(model, **options)
    assert "\n" not in str(caught.value)


# Inputs of other kinds ---------------------------------------------------------------------------


def test_several_inputs():
    (timing,) = quick(one_node("Add", TensorProto.FLOAT, ["n", 4], ["n", 4]), batches=[5]).timings
    assert timing.shapes == {"a": (5, 4), "b": (5, 4)}


def test_no_inputs():
    b = onnx.helper.make_node("Constant", [], ["y"], value_float=1.5)
    output = onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
    graph = onnx.helper.make_graph([b], "constant", [], [output])
    opset = onnx.helper.make_opsetid("", 17)
    (timing,) = quick(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)).timings
    assert (timing.batch, timing.shapes) == (1, {})


def test_strings():
    model = one_node("Identity", TensorProto.STRING, [6])
    (timing,) = onnxfuse.bench(model, rounds=2, threads=1).timings
    assert timing.shapes == {"a": (6,)}
    assert finite(timing.latency)


def test_inputs_from_an_npz(tmp_path, fed):
    image = np.random.default_rng(0).random((2, 4, 5, 6), np.float32)
    np.savez(tmp_path / "given.npz", x=image)
    (timing,) = quick(OPEN, inputs=tmp_path / "given.npz").timings
    assert timing.batch == 2
    np.testing.assert_array_equal(fed[0][1]["x"], image)


def test_one_set_of_inputs_of_each_shape(tmp_path):
    for number, extent in enumerate((6, 6, 9)):
        folder = tmp_path / f"set_{number}"
        folder.mkdir()
        array = np.full((1, 4, extent, extent), number, np.float32)
        (folder / "input_0.pb").write_bytes(onnx.numpy_helper.from_array(array).SerializeToString())
    result = quick(OPEN, inputs=tmp_path)
    assert [t.shapes["x"] for t in result.timings] == [(1, 4, 6, 6), (1, 4, 9, 9)]
    assert "of 3 sets of inputs, one of each shape is used" in " ".join(result.notes)


def test_sequences_from_test_data(tmp_path):
    values = [np.ones(3, np.float32)] * 4
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "input_0.pb").write_bytes(onnx.numpy_helper.from_list(values).SerializeToString())
    (timing,) = quick(sequence_length(), inputs=tmp_path).timings
    assert timing.shapes == {"s": (4,)}


# The rest ----------------------------------------------------------------------------------------


def test_few_rounds_are_noted():
    (note,) = quick(FIXED, rounds=5).notes
    assert note.startswith("fewer than 6 rounds: the intervals are the ranges")
    assert quick(FIXED, rounds=6).notes == ()


def test_a_busy_machine_is_noted(monkeypatch):
    monkeypatch.setattr(measuring.Others, "note", lambda self: "busy")
    assert quick([FIXED, FIXED], rounds=6).notes == ("busy",)


def test_sessions_are_created_anew_for_each_block(monkeypatch):
    opened = []
    original = measuring.Opened.renew
    monkeypatch.setattr(measuring.Opened, "renew", lambda self: (opened.append(1), original(self)))
    quick(FIXED, rounds=20)
    assert len(opened) == 10
    opened.clear()
    monkeypatch.setattr(measuring, "_CHEAP", 0.0)
    quick(FIXED, rounds=20)
    assert len(opened) == 1


def test_progress_is_told():
    told = []
    onnxfuse.bench(
        FIXED, rounds=3, profile=True, progress=lambda step, done, total: told.append((step, done))
    )
    assert told[0] == ("reading model 1", 0)
    assert ("cpu, batch 1: rounds", 3) in told
    assert {"cpu, batch 1: memory of model 1", "cpu, batch 1: profile of model 1"} <= {
        step for step, _ in told
    }


def test_optimization_and_threads_reach_the_sessions(monkeypatch):
    seen = []
    original = measuring.caller

    def spy(session, feeds):
        seen.append(session.raw.get_session_options())
        return original(session, feeds)

    monkeypatch.setattr(measuring, "caller", spy)
    quick(FIXED, optimization="off", threads=2)
    options = seen[0]
    assert options.intra_op_num_threads == 2
    assert options.graph_optimization_level.name == "ORT_DISABLE_ALL"
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_bench_stays_a_function_whatever_is_imported():
    for module in ("result", "bench", "terminal"):
        importlib.import_module(f"onnxfuse.benchmark.{module}")
    assert callable(onnxfuse.bench)


def test_torch_is_not_needed():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import onnxfuse, onnxfuse.benchmark.terminal, onnxfuse.benchmark.memory_probe\n"
        "onnxfuse.bench('models/three_branch.onnx', rounds=1, memory=False)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
