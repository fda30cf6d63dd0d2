"""Latency of models before and after, in turn in one run, the runtime's own optimizations on.

python -m scripts.bench_latency              networks of models/ and those the tests install
python -m scripts.bench_latency model.onnx   any model; symbolic: batch 1, extents 224
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

import onnxfuse

NETWORKS = ("repvgg_a0", "mobileone_s0", "mobileone_s1", "acnet_resnet18")
REAL = {
    "ch_PP-OCRv4_det_infer": (1, 3, 640, 640),
    "ch_PP-OCRv4_rec_infer": (1, 3, 48, 320),
    "ch_ppocr_mobile_v2.0_cls_infer": (1, 3, 48, 192),
}
WARM_UP = 3


def cases(paths: Sequence[Path]) -> Iterator[tuple[str, onnx.ModelProto, tuple[int, ...]]]:
    """Name, model and input shape of everything to measure."""
    for path in paths:
        model = onnx.load(path)
        dims = model.graph.input[0].type.tensor_type.shape.dim
        shape = tuple(d.dim_value or (224 if axis else 1) for axis, d in enumerate(dims))
        yield path.stem, model, shape
    if paths:
        return
    import torch

    from models import ZOO, build
    from models.exporting import export

    for name in NETWORKS:
        shape = ZOO[name].input_shape
        yield name, export(build(name), torch.zeros(shape), "dynamo", dynamic=False), shape
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is not None and found.origin is not None:
        for name, shape in REAL.items():
            yield name, onnx.load(Path(found.origin).parent / "models" / f"{name}.onnx"), shape


def session(model: onnx.ModelProto, threads: int) -> ort.InferenceSession:
    """A session on the CPU provider."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def measure(
    models: Sequence[onnx.ModelProto], shape: tuple[int, ...], rounds: int, threads: int
) -> list[list[float]]:
    """Seconds of every round for each model, the models taking turns."""
    runners = [session(model, threads) for model in models]
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    seconds: list[list[float]] = [[] for _ in models]
    for number in range(WARM_UP + rounds):
        for runner, times in zip(runners, seconds, strict=True):
            start = time.perf_counter()
            runner.run(None, {runner.get_inputs()[0].name: image})
            if number >= WARM_UP:
                times.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print("| model | input | nodes | before, ms | after, ms | speedup (quartiles) |")
    print("|---|---|---|---|---|---|")
    for name, model, shape in cases(options.models):
        fused = onnxfuse.optimize(model)
        before, after = measure([model, fused.model], shape, options.rounds, options.threads)
        ratios = [a / b for a, b in zip(before, after, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        nodes = f"{fused.report.before.nodes} -> {fused.report.after.nodes}"
        times = [1000 * statistics.median(run) for run in (before, after)]
        print(
            f"| {name} | {'x'.join(map(str, shape))} | {nodes} | {times[0]:.2f} | {times[1]:.2f} "
            f"| {middle:.2f} ({low:.2f}-{high:.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
