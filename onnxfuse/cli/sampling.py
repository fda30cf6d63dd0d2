"""Options of the commands that run models on samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from onnxfuse.calibration import Pixels

FORMS = (
    "a folder of images (or of such, one for each class), .npy files or ONNX test data; an .npz or "
    ".npy; package.module:factory or path/file.py:factory."
)
"""Where samples may come from."""


def pixel_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--mean`, `--std` and `--bgr`."""
    bgr = click.option("--bgr", is_flag=True, help="Of images: blue comes first.")
    std = _channels("--std", "what they are divided by then.")
    mean = _channels("--mean", "what is subtracted from pixels in [0, 1], for each channel or all.")
    made: Callable[..., Any] = mean(std(bgr(command)))
    return made


def pixels_of(mean: tuple[float, ...] | None, std: tuple[float, ...] | None, bgr: bool) -> Pixels:
    """What these options say."""
    from onnxfuse.calibration import Pixels

    return Pixels(mean or Pixels.mean, std or Pixels.std, bgr)


def files_of(data: Iterable[str | None], results: Iterable[Path | None]) -> list[Path]:
    """The files that samples come from: of those in folders, the ones that are results too.

    Args:
        data: Where samples come from, as the options have it; None where there are none.
        results: Where the command writes.
    """
    from onnxfuse.calibration.folders import HOLDING

    there = [path for path in results if path is not None and path.is_file()]
    found: list[Path] = []
    for text in filter(None, data):
        path = Path(text)
        if path.is_dir():
            inside = (p for p in there if p.resolve().is_relative_to(path.resolve()))
            found += [p for p in inside if p.suffix.lower() in HOLDING]
        else:
            code = Path(text.rpartition(":")[0])
            found += [p for p in (path, code) if p.is_file()]
    return found


def _channels(name: str, words: str) -> Callable[[Any], Any]:
    return click.option(
        name, metavar="NUMBERS", callback=_numbers, help=f"Of images in floats: {words}"
    )


def _numbers(
    _: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise click.BadParameter(f"{text!r} is not written as 0.485,0.456,0.406 or as 0.5")
    return values
