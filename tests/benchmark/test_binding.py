"""Where inputs and outputs lie while a model is timed."""

import numpy as np
import onnxruntime
import pytest

import onnxfuse
from onnxfuse.benchmark.binding import caller, is_bound
from onnxfuse.runtime import load_model, make_feeds
from onnxfuse.runtime.session import RunError, Session, open_session
from tests.benchmark.building import image_net

IMAGE = {"x": np.ones((1, 4, 8, 8), np.float32)}


class Output:
    name = "y"


class FakeSession:
    """What `caller` uses of a session, written down."""

    def __init__(self):
        self.said = []

    def io_binding(self):
        return self

    def get_outputs(self):
        return [Output()]

    def bind_ortvalue_input(self, name, value):
        self.said.append(("input", name, value))

    def bind_output(self, name, device):
        self.said.append(("output", name, device))

    def synchronize_inputs(self):
        self.said.append("inputs there")

    def synchronize_outputs(self):
        self.said.append("outputs there")

    def run_with_iobinding(self, binding):
        assert binding is self
        self.said.append("run")

    def run(self, outputs, feeds):
        self.said.append(("plain", outputs, feeds))


@pytest.fixture
def copied(monkeypatch):
    """Copies to a device that is not there."""
    monkeypatch.setattr(
        onnxruntime.OrtValue,
        "ortvalue_from_numpy",
        lambda array, device, number: (device, number, array.flags.c_contiguous),
    )


@pytest.mark.usefixtures("copied")
def test_device_buffers_are_bound_before_and_awaited_within():
    raw = FakeSession()
    feeds = {"x": np.ones((4, 3), np.float32).T}
    call = caller(Session(raw, "m", "CUDAExecutionProvider", 0.0), feeds)
    bound = [("input", "x", ("cuda", 0, True)), ("output", "y", "cuda"), "inputs there"]
    assert raw.said == [*bound, "run", "outputs there"]
    raw.said.clear()
    call()
    assert raw.said == ["run", "outputs there"]


def test_the_cpu_takes_arrays():
    raw = FakeSession()
    caller(Session(raw, "m", "CPUExecutionProvider", 0.0), IMAGE)()
    assert raw.said == [("plain", None, IMAGE)] * 2


@pytest.mark.parametrize("value", [np.array(["a"], object), [np.ones(2)]], ids=["string", "list"])
def test_strings_and_sequences_are_not_bound(value):
    assert not is_bound("CUDAExecutionProvider", {**IMAGE, "s": value})
    assert is_bound("CUDAExecutionProvider", IMAGE)
    assert not is_bound("CPUExecutionProvider", IMAGE)
    raw = FakeSession()
    caller(Session(raw, "m", "CUDAExecutionProvider", 0.0), {"s": value})
    assert raw.said == [("plain", None, {"s": value})]


def test_inputs_that_do_not_fit():
    with load_model(image_net(1, 4, 8, 8)) as model:
        session = open_session(model, "CPUExecutionProvider", threads=1)
        with pytest.raises(RunError, match="the model: "):
            caller(session, {"x": np.ones((1, 4, 9, 9), np.float32)})


@pytest.mark.cuda
def test_cuda():
    model = image_net("batch", 4, 8, 8)
    with load_model(model) as loaded:
        feeds = make_feeds(loaded.inputs, {"batch": 2})
        results = []
        for provider in ("CPUExecutionProvider", "CUDAExecutionProvider"):
            session = open_session(loaded, provider)
            caller(session, feeds)()
            results.append(session.run(feeds)[0])
        np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-4)
    result = onnxfuse.bench(
        [model, model], providers=["cpu", "cuda"], batches=[1, 4], rounds=6, profile=True
    )
    found = [(timing.provider, timing.batch) for timing in result.timings]
    assert found == [(p, b) for p in ("cpu", "cuda") for b in (1, 4) for _ in range(2)]
    assert all(timing.latency.value > 0 and timing.operators for timing in result.timings)
    assert any("peak memory is that of the host" in note for note in result.notes)
    assert "gpu" in result.machine
