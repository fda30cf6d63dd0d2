"""What other processes did meanwhile."""

import pytest

from onnxfuse.benchmark import others
from onnxfuse.benchmark.others import Others, busy_seconds


@pytest.fixture
def clocks(monkeypatch):
    """The time on the wall, of all processors, and of this process, each as it is set."""
    now = {"wall": 100.0, "busy": 1000.0, "own": 5.0}
    monkeypatch.setattr(others.time, "monotonic", lambda: now["wall"])
    monkeypatch.setattr(others, "busy_seconds", lambda: now["busy"])
    monkeypatch.setattr(others, "_own_seconds", lambda: now["own"])
    return now


def test_what_others_took_is_noted(clocks):
    watch = Others()
    clocks.update(wall=110.0, busy=1025.0, own=15.0)
    assert watch.note().startswith("the machine was not idle: others took 1.5 of ")


def test_an_idle_machine_and_an_unknown_one(clocks):
    watch = Others()
    clocks.update(wall=110.0, busy=1010.5, own=15.0)
    assert watch.note() == ""
    clocks.update(busy=None)
    assert watch.note() == ""


def test_seconds_from_proc_stat(tmp_path, monkeypatch):
    monkeypatch.setattr(others.os, "sysconf", lambda name: 100, raising=False)
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 300 9999 8888 4 5 6 0 0\ncpu0 1 2 3\n")
    assert busy_seconds(stat) == 4.35
    stat.write_text("")
    assert busy_seconds(stat) is None
    assert busy_seconds(tmp_path / "none") is None
