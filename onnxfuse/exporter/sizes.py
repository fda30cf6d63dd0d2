"""The sizes at which a model with dynamic axes is traced and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from onnxfuse.exporter.inputs import Axes, random_tensor
from onnxfuse.exporter.pytorch import require

if TYPE_CHECKING:
    from torch import Tensor

SEED = 0


def extents(axes: Axes, tensors: Sequence[Tensor]) -> dict[str, int]:
    """The extent of each dynamic axis, by name."""
    return {
        name: tensor.shape[axis]
        for named, tensor in zip(axes, tensors, strict=True)
        for axis, name in named.items()
    }


def for_tracing(axes: Axes, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The examples with every dynamic extent of 0 or 1 made 2.

    torch.export takes an extent of 0 or 1 for a constant, whatever has been said about the axis.
    """
    short = {name: 2 for name, extent in extents(axes, tensors).items() if extent < 2}
    return resized(axes, tensors, short) if short else tuple(tensors)


def other_sizes(axes: Axes, tensors: Sequence[Tensor]) -> list[dict[str, int]]:
    """Extents by name that differ from the examples' in one dynamic axis each.

    A batch is one larger; other axes are twice as long, since networks want multiples.
    """
    batch = {named.get(0) for named in axes}
    return [
        {name: extent + 1 if name in batch else 2 * max(extent, 1)}
        for name, extent in extents(axes, tensors).items()
    ]


def smaller(axes: Axes, tensors: Sequence[Tensor], sizes: Mapping[str, int]) -> dict[str, int]:
    """Half the extents of the examples, for axes that cannot be longer; empty where they are 1."""
    halves = {name: n // 2 for name, n in extents(axes, tensors).items() if name in sizes}
    return halves if all(halves.values()) else {}


def resized(axes: Axes, tensors: Sequence[Tensor], sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    """The examples repeated or cut so that dynamic axes have the given extents.

    So the values stay such as the module takes: ids, lengths, positive numbers. Each repetition is
    the reverse of the one before it.
    """
    torch = require()
    generator = torch.Generator().manual_seed(SEED)
    made: list[Tensor] = []
    for named, tensor in zip(axes, tensors, strict=True):
        for axis, name in named.items():
            extent, wanted = tensor.shape[axis], sizes.get(name, tensor.shape[axis])
            if not extent:
                shape = (*tensor.shape[:axis], wanted, *tensor.shape[axis + 1 :])
                tensor = random_tensor(shape, tensor.dtype, generator).to(tensor.device)
            elif wanted != extent:
                there_and_back = [*range(extent), *reversed(range(extent))]
                picks = [there_and_back[i % (2 * extent)] for i in range(wanted)]
                tensor = tensor.index_select(axis, torch.tensor(picks, device=tensor.device))
        made.append(tensor)
    return tuple(made)
