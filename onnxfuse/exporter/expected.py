"""What PyTorch gives, and how much rounding it amplifies: the yardstick of the check.

A network is run in its own type, in float64, and once more with its inputs moved by one rounding.
How far the three are apart is what rounding explains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxfuse.errors import ModelError
from onnxfuse.exporter.inputs import Axes, show_shape
from onnxfuse.exporter.pytorch import require, said
from onnxfuse.exporter.sizes import SEED, other_sizes, resized, smaller
from onnxfuse.exporter.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor

    from onnxfuse.graph import Array


@dataclass(frozen=True)
class Expected:
    """What PyTorch gives for some inputs.

    Attributes:
        tensors: The inputs.
        label: The inputs in words, by their shapes.
        outputs: The outputs by name, in the module's own type.
        rounded: The same with other roundings: in float64, where the module runs in it, and with
            the inputs moved.
    """

    tensors: tuple[Tensor, ...]
    label: str
    outputs: Mapping[str, Array]
    rounded: tuple[Mapping[str, Array], ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the inputs."""
        return tuple(tuple(tensor.shape) for tensor in self.tensors)


@dataclass(frozen=True)
class Expectations:
    """What PyTorch gives for several inputs, the examples first.

    Attributes:
        cases: The results.
        unchecked: In words, the inputs on which PyTorch does not run.
        all_sizes: Whether each dynamic axis was at another extent in some case.
    """

    cases: tuple[Expected, ...] = ()
    unchecked: tuple[str, ...] = ()
    all_sizes: bool = True


def expectations(subject: Subject, axes: Axes, tensors: Sequence[Tensor]) -> Expectations:
    """What PyTorch gives at the examples, negated, and with each dynamic axis at another extent.

    Negated examples show a branch that an exporter took for settled. Where PyTorch does not run
    with an axis longer, it is made shorter; where it does not run with one axis changed, all are
    changed at once: extents may have to go together.

    Args:
        subject: The module.
        axes: Its dynamic axes.
        tensors: The examples, on which it is known to run.

    Raises:
        ModelError: An element type cannot be exchanged with ONNX Runtime.
    """
    exact = subject.in_float64()

    def attempt(inputs: tuple[Tensor, ...], negated: bool = False) -> Expected | str:
        label = ", ".join(show_shape(tensor.shape) for tensor in inputs) + " negated" * negated
        try:
            return _expected(subject, exact, inputs, label)
        except ModelError:
            raise
        except Exception as error:  # the module is the user's, and may raise anything
            return f"not checked on {label}, where PyTorch stops: {said(error)}"

    def at(sizes: Mapping[str, int]) -> Expected | str:
        result = attempt(resized(axes, tensors, sizes))
        halves = {} if isinstance(result, Expected) else smaller(axes, tensors, sizes)
        shorter = attempt(resized(axes, tensors, halves)) if halves else result
        return shorter if isinstance(shorter, Expected) else result

    results = [attempt(tuple(tensors))]
    if any(tensor.dtype.is_floating_point for tensor in tensors):
        opposite = (-t if t.dtype.is_floating_point else t for t in tensors)
        results.append(attempt(tuple(opposite), negated=True))
    changes = other_sizes(axes, tensors)
    apart = [at(sizes) for sizes in changes]
    if len(apart) > 1 and any(isinstance(result, str) for result in apart):
        together = at({name: extent for change in changes for name, extent in change.items()})
        if isinstance(together, Expected):
            apart = [*(result for result in apart if isinstance(result, Expected)), together]
    cases = tuple(result for result in (*results, *apart) if isinstance(result, Expected))
    unchecked = tuple(result for result in (*results, *apart) if isinstance(result, str))
    return Expectations(cases, unchecked, all(isinstance(result, Expected) for result in apart))


def _expected(
    subject: Subject, exact: Subject | None, tensors: tuple[Tensor, ...], label: str
) -> Expected:
    outputs = {name: as_array(value) for name, value in subject.run(tensors).items()}
    rounded: list[Mapping[str, Array]] = []
    wide = [t.double() if t.dtype.is_floating_point else t for t in tensors]
    for runner, inputs in ((exact, wide), (subject, _moved(tensors))):
        try:
            found = {} if runner is None else runner.run(inputs)
        except Exception:  # a module of the user's that insists on its type, or on its inputs
            continue
        if found.keys() == outputs.keys():
            rounded.append({name: as_array(value) for name, value in found.items()})
    return Expected(tensors, label, outputs, tuple(rounded))


def _moved(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The inputs, each number of a floating type moved by at most a rounding of itself."""
    torch = require()
    generator = torch.Generator().manual_seed(SEED)
    moved: list[Tensor] = []
    for tensor in tensors:
        if tensor.dtype.is_floating_point:
            sign = torch.randint(-1, 2, tensor.shape, generator=generator).to(tensor)
            tensor = tensor * (1 + torch.finfo(tensor.dtype).eps * sign)
        moved.append(tensor)
    return moved


def as_array(tensor: Tensor) -> Array:
    """The tensor in numpy.

    Raises:
        ModelError: Its element type is one that numpy and ONNX Runtime do not exchange.
    """
    try:
        array: Array = tensor.detach().cpu().numpy()
    except TypeError as error:
        raise ModelError(
            f"{tensor.dtype} cannot be checked against ONNX Runtime; leave the check out"
        ) from error
    return array
