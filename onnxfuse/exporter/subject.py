"""What is exported, as a function of tensors: a module in eval mode, or an exported program."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxfuse.errors import ModelError
from onnxfuse.exporter.inputs import show_shape
from onnxfuse.exporter.pytorch import quiet, require, said

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

TRAINING = "training mode: call module.eval() before it is exported"


@dataclass(frozen=True)
class Subject:
    """A module or program, and how it is called.

    Attributes:
        exported: What torch.onnx.export takes: an nn.Module or a torch.export.ExportedProgram.
        module: What runs in PyTorch.
        names: Names of the inputs.
        tree: How a program's inputs are nested; None for a module, which takes them one by one.
    """

    exported: Any
    module: Module
    names: tuple[str, ...]
    tree: Any = None

    @property
    def is_program(self) -> bool:
        """True for an exported program, whose dynamic axes are settled."""
        return self.tree is not None

    def run(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """The outputs by name; whatever the module raises is passed on.

        One output is called "output"; members of a tuple "output_0" and so on, those of a mapping
        by their keys.
        """
        torch = require()
        pytree = require("torch.utils._pytree")
        args, kwargs = (tensors, {}) if self.tree is None else self._nested(tensors)
        with torch.no_grad():
            result = self.module(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            return {self._free("output"): result.detach()}
        leaves, _ = pytree.tree_flatten_with_path(result)
        named: dict[str, Tensor] = {}
        for path, value in leaves:
            if isinstance(value, torch.Tensor):
                name = "_".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path)
                plain = not name or name[0].isdigit()
                named[self._free(f"output_{name}" if plain else name)] = value.detach()
        return named

    def checked_run(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """The outputs by name, for inputs that the user has chosen.

        Raises:
            ModelError: The module cannot run on them, its outputs are no tensors, or they are
                others every time.
        """
        torch = require()
        shapes = ", ".join(f"{show_shape(t.shape)} {str(t.dtype)[6:]}" for t in tensors)
        try:
            outputs, again = self.run(tensors), self.run(tensors)
        except Exception as error:  # the module is the user's, and may raise anything
            raise ModelError(f"the module cannot run on {shapes}: {said(error)}") from error
        if not outputs:
            raise ModelError("the module returns no tensor")
        for name, value in outputs.items():
            if not torch.allclose(value, again[name], rtol=0, atol=0, equal_nan=True):
                raise ModelError(
                    f"output {name!r} is another one at every run: dropout or noise that eval() "
                    "does not switch off"
                )
        return outputs

    def in_float64(self) -> Subject | None:
        """The same in float64; None where the module cannot be copied."""
        try:
            with quiet():
                return replace(self, module=copy.deepcopy(self.module).double())
        except Exception:  # the module is the user's, and copying it may raise anything
            return None

    def _nested(self, tensors: Sequence[Tensor]) -> tuple[Any, Any]:
        args, kwargs = require("torch.utils._pytree").tree_unflatten(list(tensors), self.tree)
        return args, kwargs

    def _free(self, name: str) -> str:
        """A name that no input has."""
        while name in self.names:
            name += "_"
        return name


def of_module(module: Module, tensors: Sequence[Tensor], names: Sequence[str] | None) -> Subject:
    """A module in eval mode.

    Raises:
        ModelError: It stays in training mode, or the names are too many, too few or not distinct.
    """
    training = [name or type(module).__name__ for name, m in module.named_modules() if m.training]
    if training:
        raise ModelError(f"{training[0]!r} stays in training mode when eval() is called")
    found = _parameters(module, len(tensors)) if names is None else tuple(names)
    if len(found) != len(tensors) or len(set(found)) < len(found) or not all(found):
        raise ModelError(
            f"{len(tensors)} inputs, but names for {len(found)}: {', '.join(found) or 'none'}"
        )
    return Subject(module, module, found)


def of_program(program: Any, names: Sequence[str] | None) -> tuple[Subject, tuple[Any, ...]]:
    """An exported program, and the example inputs that it holds.

    Raises:
        ModelError: It was exported in training mode, holds no examples, or takes other things than
            tensors.
    """
    torch = require()
    _check_not_training(program)
    if program.example_inputs is None:
        raise ModelError("the exported program holds no example inputs")
    leaves, tree = require("torch.utils._pytree").tree_flatten(program.example_inputs)
    if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise ModelError("the exported program takes inputs that are no tensors")
    found = tuple(program.graph_signature.user_inputs) if names is None else tuple(names)
    if len(found) != len(leaves):
        raise ModelError(f"{len(leaves)} inputs, but names for {len(found)}: {', '.join(found)}")
    return Subject(program, program.module(), found, tree), tuple(leaves)


@contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """The module in eval mode; afterwards each part is as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _parameters(module: Module, count: int) -> tuple[str, ...]:
    """Names of the first parameters of forward(); numbered where it takes any number."""
    kinds = inspect.Parameter
    parameters = inspect.signature(module.forward).parameters.values()
    named = [
        p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    if any(p.kind is kinds.VAR_POSITIONAL for p in parameters):
        named += [f"input_{index}" for index in range(len(named), count)]
    if count > len(named):
        raise ModelError(f"{count} inputs are given, but forward() takes {len(named)}")
    return tuple(named[:count])


def _check_not_training(program: Any) -> None:
    """Raises ModelError if an operator of the program was told that this is training."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        names = [argument.name for argument in schema.arguments]
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        own_statistics = "running_mean" in given and given["running_mean"] is None
        if (given.get("train") is True or given.get("training") is True) and not own_statistics:
            raise ModelError(f"{schema.name.partition('::')[2]} {node.name!r} is in {TRAINING}")
