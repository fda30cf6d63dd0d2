"""What every channel of a tensor holds, on samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnxfuse import io
from onnxfuse.affine import Array
from onnxfuse.errors import ModelError
from onnxfuse.runtime import load_model, open_session
from onnxfuse.runtime.feeds import Feeds

_PROVIDER = "CPUExecutionProvider"


@dataclass(frozen=True)
class Range:
    """What the channels of a tensor hold.

    Attributes:
        smallest: The smallest number in each, (C,).
        largest: The largest, (C,).
        power: The mean of its squares, (C,).
        mean: The mean, (C,).
        count: How many values of each channel were seen.
    """

    smallest: Array
    largest: Array
    power: Array
    mean: Array
    count: int

    def scaled(self, scale: Array) -> Range:
        """The range of the tensor with its channels scaled, (C,)."""
        return Range(
            smallest=self.smallest * scale,
            largest=self.largest * scale,
            power=self.power * scale**2,
            mean=self.mean * scale,
            count=self.count,
        )


def channel_ranges(
    source: io.Source,
    axes: Mapping[str, int],
    samples: Iterable[Feeds],
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, Range]:
    """What the channels of tensors hold, by tensor.

    Args:
        source: The model.
        axes: The tensors, and the axis of the channels in each.
        samples: Inputs of the model.
        tell: Called with how many samples are done.

    Raises:
        ModelError: There are no samples, all are empty, or a tensor is not finite on one of them.
        RunError: The model does not run on them.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(source.model)
    given = {value.name for value in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in axes.keys() - given)
    seen: dict[str, Range] = {}
    counts = dict.fromkeys(axes, 0)
    done = 0
    with load_model(replace(source, model=watched)) as loaded:
        session = open_session(loaded, _PROVIDER)
        for feeds in samples:
            for name, value in zip(axes, session.run(feeds, list(axes)), strict=True):
                if not value.size:  # an image without objects
                    nothing = np.zeros(value.shape[axes[name]])
                    seen.setdefault(name, Range(nothing, nothing, nothing, nothing, 0))
                    continue
                with np.errstate(invalid="ignore"):  # of infinite values, which are refused
                    found = _range(value.astype(np.float64), axes[name])
                if not np.all(np.isfinite(found.power)):
                    raise ModelError(f"{source.name}: {name!r} is not finite on run {done}")
                count = counts[name]
                seen[name] = _joined(seen[name], found, count) if count else found
                counts[name] += 1
            done += 1
            tell(done)
    if not done:
        raise ModelError("there are no samples to calibrate with")
    if counts and not any(counts.values()):
        raise ModelError("the samples to calibrate with are empty")
    return seen


def _range(value: Array, axis: int) -> Range:
    others = tuple(a for a in range(value.ndim) if a != axis)
    return Range(
        smallest=np.min(value, axis=others),
        largest=np.max(value, axis=others),
        power=np.mean(np.square(value), axis=others),
        mean=np.mean(value, axis=others),
        count=value.size // value.shape[axis],
    )


def _joined(before: Range, now: Range, count: int) -> Range:
    """The range of `count` samples and one more."""
    return Range(
        smallest=np.minimum(before.smallest, now.smallest),
        largest=np.maximum(before.largest, now.largest),
        power=before.power + (now.power - before.power) / (count + 1),
        mean=before.mean + (now.mean - before.mean) / (count + 1),
        count=before.count + now.count,
    )
