"""What PyTorch gives, in the module's own type and in float64: the yardstick of the check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxfuse.errors import ModelError
from onnxfuse.exporter.inputs import Axes, show_shape
from onnxfuse.exporter.pytorch import said
from onnxfuse.exporter.sizes import other_sizes, resized
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
        exact: The same in float64; None where the module does not run in it.
    """

    tensors: tuple[Tensor, ...]
    label: str
    outputs: Mapping[str, Array]
    exact: Mapping[str, Array] | None

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the inputs."""
        return tuple(tuple(tensor.shape) for tensor in self.tensors)


def expectations(
    subject: Subject, axes: Axes, tensors: Sequence[Tensor]
) -> tuple[list[Expected], list[str]]:
    """What PyTorch gives at the examples, negated, and with each dynamic axis at another extent.

    Negated examples show a branch that an exporter took for settled. Where PyTorch does not run
    with one axis changed, all are changed at once as well: extents may have to go together.

    Args:
        subject: The module.
        axes: Its dynamic axes.
        tensors: The examples, on which it is known to run.

    Returns:
        The results, and in words the inputs on which PyTorch does not run.
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

    results = [attempt(tuple(tensors))]
    if any(tensor.dtype.is_floating_point for tensor in tensors):
        opposite = (-t if t.dtype.is_floating_point else t for t in tensors)
        results.append(attempt(tuple(opposite), negated=True))
    changes = other_sizes(axes, tensors)
    apart = [attempt(resized(axes, tensors, sizes)) for sizes in changes]
    if len(apart) > 1 and any(isinstance(result, str) for result in apart):
        sizes = {name: extent for change in changes for name, extent in change.items()}
        together = attempt(resized(axes, tensors, sizes))
        if isinstance(together, Expected):
            apart = [*(result for result in apart if isinstance(result, Expected)), together]
    results += apart
    found = [result for result in results if isinstance(result, Expected)]
    return found, [result for result in results if isinstance(result, str)]


def _expected(
    subject: Subject, exact: Subject | None, tensors: tuple[Tensor, ...], label: str
) -> Expected:
    outputs = {name: as_array(value) for name, value in subject.run(tensors).items()}
    wide: Mapping[str, Array] | None = None
    if exact is not None:
        try:
            run = exact.run([t.double() if t.dtype.is_floating_point else t for t in tensors])
            wide = {name: as_array(value) for name, value in run.items()}
        except Exception:  # a module of the user's that insists on its type has no yardstick
            wide = None
    return Expected(tensors, label, outputs, wide)


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
