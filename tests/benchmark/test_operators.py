"""Time by operator type: from events as the runtime writes them, and from the runtime."""

import pytest

from onnxfuse.benchmark.operators import operator_shares, shares
from onnxfuse.benchmark.settings import Settings
from onnxfuse.runtime import load_model
from onnxfuse.runtime.session import RunError
from tests.benchmark.building import image_net
from tests.lift.building import Builder

CPU = Settings("CPUExecutionProvider", threads=1)


def kernel(op, ts, dur, tid=1):
    event = {"cat": "Node", "name": f"{op}_0_kernel_time", "ts": ts, "dur": dur, "tid": tid}
    return event | {"args": {"op_name": op}}


def model_run(ts, dur=1000):
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "tid": 1}


def test_shares_of_the_time():
    events = [model_run(0), kernel("Relu", 10, 25), kernel("Conv", 40, 50), kernel("Conv", 95, 25)]
    assert shares(events, warm_up=0) == {"Conv": 0.75, "Relu": 0.25}
    assert list(shares(events, warm_up=0)) == ["Conv", "Relu"]


def test_warm_up_runs_do_not_count():
    events = [
        *(model_run(0), kernel("Conv", 10, 900)),
        *(model_run(2000), kernel("Conv", 2010, 30), kernel("Relu", 2050, 10)),
    ]
    assert shares(events, warm_up=1) == {"Conv": 0.75, "Relu": 0.25}


def test_other_events_do_not_count():
    fence = {**kernel("Conv", 5, 500), "name": "Conv_0_fence_before"}
    loading = {"cat": "Session", "name": "model_loading", "ts": 0, "dur": 9, "tid": 1}
    assert shares([loading, fence, kernel("Conv", 10, 20)], warm_up=0) == {"Conv": 1.0}
    assert shares([], warm_up=3) == {}


def test_a_body_is_not_counted_twice():
    events = [
        kernel("Conv", 20, 60),  # within If, written before it
        kernel("If", 10, 100),
        kernel("Relu", 120, 100),
        kernel("Add", 30, 40, tid=2),  # another thread
    ]
    found = shares(events, warm_up=0)
    assert found == pytest.approx(
        {"Relu": 100 / 240, "Conv": 60 / 240, "If": 40 / 240, "Add": 40 / 240}
    )


def test_the_runtime_s_own_profile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with load_model(image_net(1, 4, 8, 8)) as model:
        from onnxfuse.runtime import make_feeds

        feeds = make_feeds(model.inputs, {})
        found = operator_shares(model, CPU, feeds)
        off = Settings("CPUExecutionProvider", optimization="off", threads=1)
        assert set(operator_shares(model, off, feeds)) == {"Conv", "Relu"}
    assert sum(found.values()) == pytest.approx(1)
    assert sorted(found.values(), reverse=True) == list(found.values())
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_does_not_run():
    b = Builder()
    x = b.input("n")
    with load_model(b.model(b.op("Reshape", x, b.constant([2, 2]), output="y"))) as model:
        from onnxfuse.runtime import make_feeds

        with pytest.raises(RunError, match="Reshape"):
            operator_shares(model, CPU, make_feeds(model.inputs, {"n": 3}))
