"""Does the planner choose well? Two-layer regions, measured as they are and as one node, in turn.

Every region of a grid is run in its own form and as the one node that the algebra makes of it; the
table shows the measured ratio (above 1: one node is faster), the cost model's, and what the planner
does. A wrong choice is one that loses more than 5%.

    python -m scripts.bench_folds
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.graph import Graph
from onnxfuse.lower import lower
from onnxfuse.options import components
from onnxfuse.plan import cover
from onnxfuse.regions import find_regions
from onnxfuse.rounding import Rounded, round_constants
from onnxfuse.shapes import infer_types

SIZES = (14, 56)
TOLERATED = 0.95


def region(layers: list[tuple[int, int, tuple[int, int], int]], size: int) -> onnx.ModelProto:
    """A chain Relu, Conv, .., Conv, Relu; a layer is (inputs, outputs, kernel, groups)."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [helper.make_node("Relu", ["image"], ["x"])], [], "x"
    for index, (inputs, outputs, kernel, groups) in enumerate(layers):
        value = rng.standard_normal((outputs, inputs // groups, *kernel)).astype(np.float32)
        weights.append(numpy_helper.from_array(value, f"w{index}"))
        made = "y" if index == len(layers) - 1 else f"t{index}"
        attributes = {"group": groups, "kernel_shape": kernel}
        if max(kernel) > 1 and index == len(layers) - 1:
            attributes["pads"] = [k // 2 for k in kernel] * 2
        nodes.append(helper.make_node("Conv", [x, f"w{index}"], [made], name=made, **attributes))
        x = made
    nodes.append(helper.make_node("Relu", ["y"], ["out"]))
    shape = [1, layers[0][0], size, size]
    graph = helper.make_graph(
        nodes,
        "region",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def folded(model: onnx.ModelProto) -> tuple[onnx.ModelProto, float, bool] | None:
    """The region as one node, the cost model's ratio, and whether the planner takes the fold."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    graph = Graph(copy.graph, 17, 8, types=infer_types(copy))
    regions = find_regions(graph)
    (component,) = components(regions)
    taken = cover(component.order, component.options, component.required)
    candidate = next((c for c in regions.candidates["y"] if c.source == "x"), None)
    if candidate is None:
        return None
    kept = sum(component.options[name][0].cost for name in component.order)
    lowered = lower(graph, candidate.term, candidate.view, "x", "y")
    rounded = round_constants(lowered, TensorProto.FLOAT)
    assert isinstance(rounded, Rounded)
    for name, value in rounded.constants.items():
        graph.add_constant(name, value)
    graph.replace("y", lowered.nodes)
    graph.commit()
    return copy, kept / candidate.work.nanoseconds, taken["y"].choice >= 0


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """A session on one thread, with the runtime's own optimizations on."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def ratio(before: onnx.ModelProto, after: onnx.ModelProto, rounds: int) -> float:
    """Median over rounds of the time of one model over that of the other, run in turn."""
    runners = [session(before), session(after)]
    shape = runners[0].get_inputs()[0].shape
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    start = time.perf_counter()
    for runner in runners:
        runner.run(None, {"image": image})
    repeats = max(1, int(0.004 / (time.perf_counter() - start)))
    ratios = []
    for _ in range(rounds):
        seconds = []
        for runner in runners:
            start = time.perf_counter()
            for _ in range(repeats):
                runner.run(None, {"image": image})
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def grid() -> list[tuple[str, list[tuple[int, int, tuple[int, int], int]]]]:
    """The regions: a name and layers."""
    found = []
    for c in (8, 16, 32, 64, 128, 256):
        found.append((f"3x3 {c} dw, 1x1 {c}-{c}", [(c, c, (3, 3), c), (c, c, (1, 1), 1)]))
        found.append((f"1x1 {c}-{c}, 3x3 {c}-{c}", [(c, c, (1, 1), 1), (c, c, (3, 3), 1)]))
        found.append((f"1x3, 3x1 {c}", [(c, c, (1, 3), 1), (c, c, (3, 1), 1)]))
        found.append((f"1x1 {c}-{c}, 1x1 {c}-{c}", [(c, c, (1, 1), 1), (c, c, (1, 1), 1)]))
        found.append((f"3x3 dw, 1x1 dw {c}", [(c, c, (3, 3), c), (c, c, (1, 1), c)]))
        found.append(
            (f"1x1 {c}-{4 * c}, dw 3x3", [(c, 4 * c, (1, 1), 1), (4 * c, 4 * c, (3, 3), 4 * c)])
        )
        if c > 16:
            found.append(
                (f"1x1 {c}-{c // 4}-{c}", [(c, c // 4, (1, 1), 1), (c // 4, c, (1, 1), 1)])
            )
            found.append(
                (
                    f"1x1 {c}-{c // 2}, {c // 2}-{c}",
                    [(c, c // 2, (1, 1), 1), (c // 2, c, (1, 1), 1)],
                )
            )
            found.append((f"3x3 g4 {c}, 1x1 {c}-{c}", [(c, c, (3, 3), 4), (c, c, (1, 1), 1)]))
    return found


def main() -> None:
    """Measures the grid and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print("| region | size | measured | model | planner |\n|---|---|---|---|---|")
    wrong = total = 0
    for name, layers in grid():
        for size in SIZES:
            model = region(layers, size)
            made = folded(model)
            if made is None:
                continue
            one, modelled, taken = made
            measured = ratio(model, one, rounds)
            gain = measured if taken else 1 / measured
            total, wrong = total + 1, wrong + (gain < TOLERATED)
            choice = ("folds" if taken else "keeps") + (", wrong" if gain < TOLERATED else "")
            print(f"| {name} | {size} | {measured:.2f} | {modelled:.2f} | {choice} |", flush=True)
    print(f"\n{wrong} of {total} choices lose more than {1 - TOLERATED:.0%}")


if __name__ == "__main__":
    main()
