"""Images as a network takes them."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxfuse.errors import ModelError
from onnxfuse.io.files import one_line
from onnxfuse.runtime import Feeds, Input

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Pixels:
    """What a network was trained to see in place of pixels from 0 to 255.

    An input of integers takes them as they are. One of floats takes (pixel / 255 - mean) / std.

    Attributes:
        mean: Of each channel, in the order in which the network takes them; or one for all.
        std: Likewise.
        bgr: Whether blue comes first.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False


@dataclass(frozen=True)
class ImageReader:
    """Reads images for one input.

    Attributes:
        given: The input.
        height: Rows.
        width: Columns.
        channels: 1 or 3.
        last: Whether channels are the last axis, (N, H, W, C), rather than (N, C, H, W).
        pixels: What becomes of pixels.
    """

    given: Input
    height: int
    width: int
    channels: int
    last: bool
    pixels: Pixels

    def read(self, path: Path) -> Feeds:
        """An image, resized (bilinear) and with a leading axis.

        Raises:
            ModelError: It is damaged, is no image, or has more than 8 bits a channel.
        """
        image = _package("Image")
        mode = "RGB" if self.channels == 3 else "L"
        try:
            with warnings.catch_warnings(), image.open(path) as opened:
                warnings.simplefilter("ignore")  # of transparency, which is passed over, and size
                if opened.mode.startswith(("I", "F")):
                    raise ModelError(f"{path}: more than 8 bits a channel: give it as an .npy")
                made = opened.convert(mode).resize(
                    (self.width, self.height), image.Resampling.BILINEAR
                )
                array = np.asarray(made, np.uint8).reshape(self.height, self.width, self.channels)
        except image.DecompressionBombError as error:
            raise ModelError(f"{path}: {one_line(error)}") from error
        except (OSError, ValueError, SyntaxError, EOFError, TypeError) as error:  # damaged ones
            raise ModelError(f"{path}: not an image that can be read: {one_line(error)}") from error
        return {self.given.name: self._prepared(array)}

    def _prepared(self, array: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, Any]:
        """(H, W, C), red first -> what the input takes."""
        if self.pixels.bgr:
            array = array[..., ::-1]
        made: np.ndarray[Any, Any] = array
        if self.given.dtype.kind == "f":
            mean, std = (np.asarray(v, np.float64) for v in (self.pixels.mean, self.pixels.std))
            made = ((array / 255.0 - mean) / std).astype(self.given.dtype)
        made = made if self.last else made.transpose(2, 0, 1)
        return np.ascontiguousarray(made[np.newaxis])


def image_reader(given: Input, sizes: Mapping[str, int], pixels: Pixels, where: str) -> ImageReader:
    """How images are read for an input.

    Args:
        given: The input: float, or bytes; (N, C, H, W) or (N, H, W, C) with 1 or 3 channels.
        sizes: Extents of its symbolic dimensions.
        pixels: What becomes of pixels.
        where: What messages begin with.

    Raises:
        ModelError: It takes no images, an extent is open, an option does not fit, or Pillow is not
            installed.
    """
    _package("Image")
    kind = given.dtype if given.elem_type else np.dtype(object)
    shape = given.shape or ()
    declared = "x".join(map(str, shape)) or "nothing of a declared shape"
    first = len(shape) == 4 and shape[1] in _CHANNELS
    last = len(shape) == 4 and not first and shape[3] in _CHANNELS
    if not (first or last) or (kind.kind != "f" and kind != np.uint8):
        raise ModelError(
            f"{where}: input {given.name!r} takes {kind.name} {declared}, no images: those are "
            "float or uint8, NxCxHxW or NxHxWxC with 1 or 3 channels"
        )
    channels, *extents = (shape[3], shape[1], shape[2]) if last else shape[1:]
    height, width = (_extent(extent, sizes, given, where) for extent in extents)
    assert isinstance(channels, int)
    _check_pixels(pixels, channels, kind)
    return ImageReader(given, height, width, channels, last, pixels)


def _extent(extent: int | str, sizes: Mapping[str, int], given: Input, where: str) -> int:
    known = extent if isinstance(extent, int) else sizes.get(extent)
    if known is None:
        raise ModelError(
            f"{where}: {extent!r} of input {given.name!r} is not fixed: say to what images are "
            f"resized, such as --size {extent}=224"
        )
    if known < 1:
        raise ModelError(f"{where}: input {given.name!r} has an extent of {known}")
    return known


def _check_pixels(pixels: Pixels, channels: int, kind: np.dtype[Any]) -> None:
    for name, values in (("mean", pixels.mean), ("std", pixels.std)):
        if len(values) not in (1, channels):
            raise ModelError(f"{len(values)} values of {name} for {channels} channels")
        if not np.isfinite(values).all() or (name == "std" and min(values) <= 0):
            raise ModelError(f"{name} cannot be {','.join(map(str, values))}")
    if kind.kind != "f" and (pixels.mean, pixels.std) != (Pixels.mean, Pixels.std):
        raise ModelError(f"the input takes {kind.name} pixels as they are: no mean, no std")
    if pixels.bgr and channels == 1:
        raise ModelError("the input takes one channel: there is no blue to come first")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(f"PIL.{name}")
    except ModuleNotFoundError as error:
        raise ModelError(
            "images need the package pillow: pip install 'onnxfuse[images]'"
        ) from error
