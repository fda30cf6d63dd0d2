"""Time and memory of onnxfuse itself against onnxsim and onnxslim, on the same files in one run.

Every measurement is a process of its own that reads a file, optimizes it and writes the result;
imports count. onnxfuse runs as its command line does. The tools take turns, round by round, and the
medians are compared. A tool that takes a minute is stopped; that counts as its time, and it does
not run on that file again. Memory is what Linux calls VmHWM.

    python -m scripts.bench_optimizer                     networks, and graphs of 1k to 20k nodes
    python -m scripts.bench_optimizer a.onnx b.onnx       any files
    python -m scripts.bench_optimizer --json result.json  the table as JSON as well
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TOOLS = {
    "load + save": "import onnx; onnx.save(onnx.load(source), target)",
    "onnxfuse": """
import runpy
sys.argv = ["onnxfuse", "optimize", source, "-o", target, "--quiet"]
try:
    runpy.run_module("onnxfuse", run_name="__main__")
except SystemExit as done:
    assert not done.code
""",
    "onnxsim": "import onnx, onnxsim; onnx.save(onnxsim.simplify(onnx.load(source))[0], target)",
    "onnxslim": "import onnxslim; onnxslim.slim(source, target)",
}
FRAME = """
import sys, time
start = time.perf_counter()
source, target = sys.argv[1:]
{body}
seconds = time.perf_counter() - start
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("measured", seconds, peak)
"""
INTERPRETER = "import onnx, onnxruntime, numpy"
NETWORKS = ("repvgg_a0", "mobileone_s0", "acnet_resnet18", "dbb_resnet18", "ecbsr_m4c16")
SIZES = (1_000, 5_000, 20_000)
TIMEOUT = 60


def multi_branch(nodes: int, channels: int = 8) -> onnx.ModelProto:
    """A chain of blocks Relu(BN(conv3x3(x)) + BN(conv1x1(x)) + BN(x)), 8 nodes each."""
    rng = np.random.default_rng(0)
    made: list[onnx.NodeProto] = []
    weights: list[TensorProto] = []

    def constant(name: str, *shape: int) -> str:
        value = rng.uniform(0.2, 0.6, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(value, name))
        return name

    def norm(x: str, y: str) -> None:
        statistics_of = [constant(f"{y}.{part}", channels) for part in ("s", "b", "m", "v")]
        made.append(helper.make_node("BatchNormalization", [x, *statistics_of], [y], name=y))

    x = "x"
    for block in range(nodes // 8):
        p = f"block{block}"
        for kernel in (3, 1):
            w = constant(f"{p}.w{kernel}", channels, channels, kernel, kernel)
            y = f"{p}.conv{kernel}"
            made.append(helper.make_node("Conv", [x, w], [y], name=y, pads=[kernel // 2] * 4))
            norm(y, f"{p}.norm{kernel}")
        norm(x, f"{p}.norm0")
        made.append(helper.make_node("Add", [f"{p}.norm3", f"{p}.norm1"], [f"{p}.sum"]))
        made.append(helper.make_node("Add", [f"{p}.sum", f"{p}.norm0"], [f"{p}.total"]))
        made.append(helper.make_node("Relu", [f"{p}.total"], [f"{p}.y"]))
        x = f"{p}.y"
    graph = helper.make_graph(
        made,
        "multi_branch",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, 16, 16])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["n", channels, 16, 16])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def files(folder: Path) -> Iterator[Path]:
    """Writes the models to measure on: networks in training form, and synthetic graphs."""
    import torch

    from models import ZOO, build
    from models.exporting import export

    for name in NETWORKS:
        path = folder / f"{name}.onnx"
        example = torch.zeros(ZOO[name].input_shape)
        onnx.save(export(build(name), example, "script_unfolded", dynamic=False), path)
        yield path
    for size in SIZES:
        path = folder / f"multi_branch_{size}.onnx"
        onnx.save(multi_branch(size), path)
        yield path
    path = folder / "wide.onnx"
    onnx.save(multi_branch(752, channels=410), path)
    yield path


def measure(body: str, source: Path, target: Path) -> tuple[float, float] | None:
    """(seconds, peak MB) of one process, or None when the tool failed.

    A tool that is not done after TIMEOUT seconds is stopped there and counts with that time.
    """
    command = [sys.executable, "-c", FRAME.format(body=body), str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return float(TIMEOUT), math.nan
    lines = [line for line in done.stdout.splitlines() if line.startswith("measured ")]
    if done.returncode or not lines:
        return None
    _, seconds, peak = lines[-1].split()
    return float(seconds), float(peak) / 1024


def bench(path: Path, rounds: int, folder: Path) -> dict[str, object]:
    """One row: median seconds and peak memory of every tool on a file."""
    runs: dict[str, list[tuple[float, float] | None]] = {tool: [] for tool in TOOLS}
    for _ in range(rounds):
        for tool, body in TOOLS.items():
            if all(run is not None and run[0] < TIMEOUT for run in runs[tool]):
                runs[tool].append(measure(body, path, folder / "result.onnx"))
    row: dict[str, object] = {
        "file": path.name,
        "nodes": len(onnx.load(path, load_external_data=False).graph.node),
        "megabytes": round(path.stat().st_size / 1e6, 1),
    }
    for tool, results in runs.items():
        good = [r for r in results if r is not None]
        seconds = statistics.median(r[0] for r in good) if good else math.nan
        row[tool] = {"seconds": seconds, "peak_mb": max((r[1] for r in good), default=math.nan)}
    return row


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        empty = measure(INTERPRETER, folder, folder)
        print(
            f"\ninterpreter with onnx and onnxruntime: {empty[1] if empty else math.nan:.0f} MB\n"
        )
        print("| file | nodes | MB | " + " | ".join(f"{t}: s, peak MB" for t in TOOLS) + " |")
        print("|---" * (3 + len(TOOLS)) + "|", flush=True)
        rows = []
        for path in options.models or files(folder):
            row = bench(path, options.rounds, folder)
            rows.append(row)
            cells = [f"{row[t]['seconds']:.2f}, {row[t]['peak_mb']:.0f}" for t in TOOLS]
            print(
                f"| {row['file']} | {row['nodes']} | {row['megabytes']} | {' | '.join(cells)} |",
                flush=True,
            )
        print()
        for tool in ("onnxsim", "onnxslim", "load + save"):
            ratios = [row[tool]["seconds"] / row["onnxfuse"]["seconds"] for row in rows]
            ratios = [r for r in ratios if not math.isnan(r)]
            print(
                f"{tool} takes {statistics.geometric_mean(ratios):.2f}x the time of onnxfuse "
                f"(geometric mean over {len(ratios)} files)"
            )
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
