"""Which operator types a model's time goes to, from ONNX Runtime's own profile."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onnxfuse.benchmark.binding import caller
from onnxfuse.benchmark.settings import Settings
from onnxfuse.runtime import Feeds
from onnxfuse.runtime.session import Openable

WARM_UP, RUNS = 3, 10


def operator_shares(model: Openable, settings: Settings, feeds: Feeds) -> dict[str, float]:
    """The share of the kernels' time that each operator type takes.

    Args:
        model: The model.
        settings: How to load it; the session is one of its own, since profiling costs time.
        feeds: What to run it on.

    Returns:
        Shares that sum to 1, the largest first, by operator as the runtime calls it after its own
        optimizations.
    """
    with tempfile.TemporaryDirectory(prefix="onnxfuse-") as folder:
        session = settings.open(model, Path(folder) / "profile")
        call = caller(session, feeds)  # runs once
        for _ in range(WARM_UP - 1 + RUNS):
            call()
        text = Path(session.raw.end_profiling()).read_text(encoding="utf-8", errors="replace")
    return shares(json.loads(text))


def shares(events: Iterable[Mapping[str, Any]], warm_up: int = WARM_UP) -> dict[str, float]:
    """Shares of time by operator type, from the events of a profile.

    Args:
        events: Events with "cat", "name", "ts" and "dur" in microseconds, "tid" and "args", as in
            a trace of Chrome. What a node's sub-graph takes is not counted for the node again.
        warm_up: How many runs at the beginning do not count.
    """
    seen = list(events)
    starts = sorted(e["ts"] for e in seen if e.get("name") == "model_run")
    begin = starts[warm_up] if len(starts) > warm_up else 0
    kernels = [
        event
        for event in seen
        if event.get("cat") == "Node"
        and event["name"].endswith("_kernel_time")
        and event["ts"] >= begin
    ]
    kernels.sort(key=lambda event: (event["tid"], event["ts"], -event["dur"]))
    times: defaultdict[str, float] = defaultdict(float)
    around: list[Mapping[str, Any]] = []
    for event in kernels:
        while around and not _inside(event, around[-1]):
            around.pop()
        if around:
            times[around[-1]["args"]["op_name"]] -= event["dur"]
        times[event["args"]["op_name"]] += event["dur"]
        around.append(event)
    total = sum(times.values()) or 1.0
    ordered = sorted(times.items(), key=lambda item: (-item[1], item[0]))
    return {name: max(time, 0.0) / total for name, time in ordered}


def _inside(event: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    ends = event["ts"] + event["dur"], other["ts"] + other["dur"]
    return bool(event["tid"] == other["tid"] and event["ts"] < ends[1] and ends[0] <= ends[1])
