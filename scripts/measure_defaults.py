"""Measures what each rewrite does to the regions that it is for, and writes the table of defaults.

Every region runs as it is and rewritten, in turn, wherever the rewrite can be made at all. What
`optimize` does by default follows from the table: `onnxfuse/rewrites/measured.py` reads it.

python -m scripts.measure_defaults                 prints the table
python -m scripts.measure_defaults --write         and writes onnxfuse/rewrites/measured.json
python -m scripts.measure_defaults --only phases   one step; the rows of others stay
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import onnx

import onnxfuse
from onnxfuse.benchmark.machine import describe
from onnxfuse.graph import Graph
from onnxfuse.pipeline import STEPS, TRIALS, optimize_with
from onnxfuse.rewrites import measured, merges, phases, subpixel
from onnxfuse.rewrites.measured import Row
from onnxfuse.shapes import infer_types
from scripts.default_regions import Region, regions

FILE = Path(measured.__file__).with_name(measured.TABLE)
BY_GAIN: Mapping[str, tuple[Callable[..., object], Callable[[Graph, int], float | None]]] = {
    "merges": (partial(merges.merge_convolutions, margin=1.0), merges.gain_at),
    "phases": (partial(phases.split_phases, margin=0.0), phases.gain_at),
    "shuffles": (partial(subpixel.delay_shuffles, margin=0.0), subpixel.gain_at),
}


def made(region: Region) -> tuple[onnx.ModelProto, float | None]:
    """A region rewritten, whether it pays or not, and the gain by the model of the cost."""
    if region.step in TRIALS:
        return optimize_with(region.step, region.model).model, None
    if region.step not in BY_GAIN:
        return onnxfuse.optimize(region.model).model, None
    rewrite, gain_at = BY_GAIN[region.step]
    copy = onnx.ModelProto()
    copy.CopyFrom(region.model)
    graph = Graph(copy.graph, 17, 8, types=infer_types(copy))
    gains = [gain_at(graph, index) for index in range(len(graph.nodes))]
    rewrite(graph, frozenset())
    return copy, max((gain for gain in gains if gain is not None), default=None)


def row(region: Region, rounds: int | None) -> Row:
    """A region, measured."""
    after, gain = made(region)
    before = region.model
    if region.step in TRIALS:
        before = onnxfuse.optimize(before).model
    elif region.step not in BY_GAIN:
        before = onnxfuse.optimize(before, skip=[region.step]).model
    assert len(before.graph.node) != len(after.graph.node) or before != after, region.name
    models = {"before": before, "after": after}
    ratio = onnxfuse.bench(models, threads=1, rounds=rounds, memory=False).timings[1].ratio
    numbers = (round(number, 3) for number in (ratio.value, ratio.low, ratio.high))
    return Row(region.step, region.name, None if gain is None else round(gain, 3), *numbers)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| step | region | modelled gain | measured (95%) |", "| --- | --- | --- | --- |"]
    for found in rows:
        gain = "" if found.gain is None else f"{found.gain:.2f}"
        ratio = f"{found.ratio:.2f} ({found.low:.2f}-{found.high:.2f})"
        lines.append(f"| {found.step} | {found.region} | {gain} | {ratio} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", choices=("", *STEPS, *TRIALS), metavar="STEP")
    parser.add_argument("--rounds", type=int, help="default: what fits into 10 s")
    parser.add_argument("--write", action="store_true", help=f"write {FILE.name}")
    options = parser.parse_args(arguments)
    rows = [row(region, options.rounds) for region in regions(options.only)]
    print(table(rows))
    for step in dict.fromkeys(found.step for found in rows if found.gain is not None):
        print(f"{step}: from a gain of {measured.threshold([r for r in rows if r.step == step])}")
    if options.write:
        others = [r for r in measured.rows() if options.only not in ("", r.step)]
        about = {**describe(), "threads": "1"}
        written = {"about": about, "rows": [asdict(found) for found in (*others, *rows)]}
        FILE.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
