"""Example inputs and dynamic axes, from what a user writes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from onnxfuse.errors import ModelError
from onnxfuse.exporter.pytorch import require

if TYPE_CHECKING:
    from torch import Generator, Tensor, dtype

Axes: TypeAlias = tuple[Mapping[int, str], ...]
"""For each input, the name of each of its dynamic axes."""

SPATIAL_NAMES = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}
"""By rank of the tensor, the names of the axes from 2 on."""

AXIS_NAMES = ("batch", "length", "depth", "height", "width")
DTYPES = (
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
)


@dataclass(frozen=True)
class InputSpec:
    """One input as the command line describes it.

    Attributes:
        shape: Its shape.
        dtype: Its element type, one of `DTYPES`.
        name: What the model calls it; None for the name of the parameter of forward().
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str | None = None


def parse_input(text: str) -> InputSpec:
    """[NAME=]SHAPE[:DTYPE], such as 1x3x224x224, 1x16:int64 or mask=1x16:bool.

    Raises:
        ModelError: It is written otherwise.
    """
    match = re.fullmatch(r"(?:([^=:]+)=)?(\d+(?:x\d+)*)(?::(\w+))?", text.strip())
    if match is None:
        raise ModelError(f"input {text!r} is not written as [NAME=]SHAPE[:DTYPE], like 1x3x224x224")
    name, shape, dtype = match.groups()
    if dtype not in (None, *DTYPES):
        raise ModelError(
            f"input {text!r}: no element type {dtype!r}; there are {', '.join(DTYPES)}"
        )
    return InputSpec(tuple(map(int, shape.split("x"))), dtype or "float32", name)


def parse_dynamic(texts: Sequence[str]) -> Sequence[str] | Mapping[str, Mapping[int, str]]:
    """Names of axes, such as batch,height,width; or by input, such as image=0:batch,2:height.

    Raises:
        ModelError: It is written otherwise, or in both ways at once.
    """
    by_input: dict[str, dict[int, str]] = {}
    names: list[str] = []
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals:
            names += [part.strip() for part in text.split(",")]
            continue
        axes = by_input.setdefault(name.strip(), {})
        for part in rest.split(","):
            match = re.fullmatch(r"\s*(-?\d+):(\w+)\s*", part)
            if match is None:
                raise ModelError(f"dynamic {text!r} is not written as INPUT=AXIS:NAME,AXIS:NAME")
            axes[int(match[1])] = match[2]
    if names and by_input:
        raise ModelError("dynamic axes are given by name or by input, not in both ways")
    return by_input or names


def example(specs: Sequence[InputSpec], seed: int) -> tuple[Tensor, ...]:
    """Noise for each input, the same for the same seed.

    Raises:
        ModelError: There is no memory for one.
    """
    torch = require()
    generator = torch.Generator().manual_seed(seed)
    tensors: list[Tensor] = []
    for spec in specs:
        try:
            tensors.append(random_tensor(spec.shape, getattr(torch, spec.dtype), generator))
        except (RuntimeError, OverflowError, MemoryError, TypeError) as error:
            raise ModelError(f"input {show_shape(spec.shape)} is too large") from error
    return tuple(tensors)


def random_tensor(shape: Sequence[int], kind: dtype, generator: Generator) -> Tensor:
    """Noise of an element type: normal for floats, zeros and ones else, which suit any index."""
    torch = require()
    if kind.is_floating_point:
        noise: Tensor = torch.randn(tuple(shape), generator=generator)
    else:
        noise = torch.randint(0, 2, tuple(shape), generator=generator)
    return noise.to(kind)


def dynamic_axes(
    dynamic: Sequence[str] | Mapping[str, Mapping[int, str]],
    names: Sequence[str],
    tensors: Sequence[Tensor],
) -> Axes:
    """The dynamic axes of each input.

    Args:
        dynamic: Names out of `AXIS_NAMES`, which stand for the usual axes of each input: axis 0 for
            "batch", those from 2 on for the others. Or for each input a name for each dynamic axis.
        names: Names of the inputs.
        tensors: Examples of the inputs.

    Raises:
        ModelError: A name, an input or an axis is not there, or one name stands for two extents.
    """
    if isinstance(dynamic, Mapping):
        if not all(isinstance(axes, Mapping) for axes in dynamic.values()):
            raise ModelError("dynamic axes by input are {input: {axis: name}}")
        axes = _by_input(dynamic, names, tensors)
    elif isinstance(dynamic, Iterable):
        axes = _by_name([dynamic] if isinstance(dynamic, str) else list(dynamic), tensors)
    else:
        raise ModelError(f"dynamic takes names of axes, not {dynamic!r}")
    extents: dict[str, int] = {}
    for named, tensor in zip(axes, tensors, strict=True):
        for axis, name in named.items():
            extent = extents.setdefault(name, tensor.shape[axis])
            if extent != tensor.shape[axis]:
                raise ModelError(
                    f"dynamic axis {name!r} is {extent} in one input and {tensor.shape[axis]} in "
                    "another: give them two names"
                )
    return axes


def _by_name(wanted: Sequence[str], tensors: Sequence[Tensor]) -> Axes:
    for name in wanted:
        if name not in AXIS_NAMES:
            raise ModelError(
                f"no axis is named {name!r}: choose from {', '.join(AXIS_NAMES)}, or name axes by "
                "input, as in image=0:batch,2:rows"
            )
    axes = [
        {
            axis: name
            for axis, name in enumerate(("batch", "", *SPATIAL_NAMES.get(t.ndim, ())))
            if name in wanted and axis < t.ndim
        }
        for t in tensors
    ]
    for name in wanted:
        if not any(name in named.values() for named in axes):
            shapes = ", ".join(show_shape(t.shape) for t in tensors)
            raise ModelError(f"no input has an axis {name!r}: the inputs are {shapes}")
    return tuple(axes)


def _by_input(
    wanted: Mapping[str, Mapping[int, str]],
    names: Sequence[str],
    tensors: Sequence[Tensor],
) -> Axes:
    for name in wanted:
        if name not in names:
            raise ModelError(f"no input is named {name!r}; there are {', '.join(names)}")
    axes: list[dict[int, str]] = []
    for input_name, tensor in zip(names, tensors, strict=True):
        named: dict[int, str] = {}
        for axis, name in wanted.get(input_name, {}).items():
            if not -tensor.ndim <= axis < tensor.ndim:
                raise ModelError(
                    f"input {input_name!r} has no axis {axis}: it is {show_shape(tensor.shape)}"
                )
            named[axis % tensor.ndim] = name
        axes.append(named)
    return tuple(axes)


def show_shape(shape: Sequence[int]) -> str:
    """A shape as it is written on the command line; a scalar's is "scalar"."""
    return "x".join(map(str, shape)) or "scalar"
