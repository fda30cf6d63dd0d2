"""Trains a small classifier of handwritten digits with and without R-Drop, and exports it.

Both variants of a seed have the same initial weights, dropout, batches and number of steps; without
R-Drop the loss is the cross entropy of a single pass. Accuracies are those on the test split after
the last step. The network trained with R-Drop on the first seed goes to FOLDER/NETWORK_digits.pt (a
state_dict) and, in training form, to FOLDER/NETWORK_digits.onnx, "image" (N, 1, 8, 8) -> "logits"
(N, 10); the test split goes to FOLDER/digits_test.npz.

Run it from the top of the repository; it needs the extra "train":

    python -m scripts.train_digits repvgg
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

import onnxfuse
from models.digits import DIGITS, Digits, load_digits
from models.training import accuracy, train

EXAMPLES = 2  # images to trace; exporters take a batch of 1 for a constant
THREADS = 1  # of several, each would have little to do; and rounding depends on their number


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, prints a Markdown table and writes the three files."""
    options = _parse(arguments)
    torch.set_num_threads(THREADS)
    training, test = load_digits()
    first, rows = _run(options, training, test)
    _print_table(options.seeds, rows)
    options.output.mkdir(parents=True, exist_ok=True)
    _write(first, options.network, options.output, test)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=DIGITS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--alpha", type=float, default=1.0, help="weight of R-Drop's divergence")
    parser.add_argument("--dropout", type=float, default=0.3, help="before the head, in both")
    parser.add_argument("--output", type=Path, default=Path("build"), metavar="FOLDER")
    return parser.parse_args(arguments)


def _run(
    options: argparse.Namespace, training: Digits, test: Digits
) -> tuple[nn.Module, list[tuple[float, float]]]:
    """The R-Drop network of the first seed; for each seed the accuracies without and with it."""
    factory = functools.partial(DIGITS[options.network].factory, options.dropout)
    networks: list[nn.Module] = []
    rows: list[tuple[float, float]] = []
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        total = 2 * len(options.seeds) * options.epochs
        task = progress.add_task(f"training {options.network}", total=total)
        for seed in options.seeds:
            plain, r_drop = (
                train(
                    factory,
                    *training,
                    epochs=options.epochs,
                    alpha=alpha,
                    seed=seed,
                    on_epoch=lambda: progress.advance(task),
                )
                for alpha in (None, options.alpha)
            )
            networks.append(r_drop)
            rows.append((accuracy(plain, *test), accuracy(r_drop, *test)))
    return networks[0], rows


def _print_table(seeds: Sequence[int], rows: Sequence[tuple[float, float]]) -> None:
    """In percent; the last line is the mean, with the standard deviation over the seeds."""
    lines = [(100 * plain, 100 * r_drop, 100 * (r_drop - plain)) for plain, r_drop in rows]
    print("| seed | without R-Drop, % | with R-Drop, % | difference |")
    print("|---|---|---|---|")
    for seed, (plain, r_drop, difference) in zip(seeds, lines, strict=True):
        print(f"| {seed} | {plain:.2f} | {r_drop:.2f} | {difference:+.2f} |")
    if len(lines) > 1:
        *means, difference = (
            (statistics.mean(column), statistics.stdev(column))
            for column in zip(*lines, strict=True)
        )
        cells = [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in means]
        cells.append(f"{difference[0]:+.2f} ± {difference[1]:.2f}")
        print(f"| mean | {' | '.join(cells)} |")


def _write(network: nn.Module, name: str, folder: Path, test: Digits) -> None:
    """The checkpoint, the ONNX model in training form, and the test split."""
    path = folder / f"{name}_digits.onnx"
    torch.save(network.state_dict(), path.with_suffix(".pt"))
    model = onnxfuse.export(
        network,
        test.images[:EXAMPLES],
        input_names=["image"],
        output_names=["logits"],
        dynamic=("batch",),
        exporter=DIGITS[name].exporter,
    ).model
    for node in model.graph.node:
        node.ClearField("metadata_props")  # where it comes from in PyTorch, half of a file's size
    onnx.save(model, path)
    data = folder / "digits_test.npz"
    np.savez_compressed(data, images=test.images.numpy(), labels=test.labels.numpy())
    for written in (path.with_suffix(".pt"), path, data):
        print(f"{written}: {written.stat().st_size} bytes")


if __name__ == "__main__":
    main()
