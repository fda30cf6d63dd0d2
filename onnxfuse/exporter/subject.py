"""What is exported, as a function of tensors: a module in eval mode, or an exported program."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxfuse.errors import ModelError
from onnxfuse.exporter.inputs import Axes, show_shape
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
        varargs_from: The first input that forward() takes as one of *args.
        tree: How a program's inputs are nested; None for a module, which takes them one by one.
    """

    exported: Any
    module: Module
    names: tuple[str, ...]
    varargs_from: int
    tree: Any = None

    @property
    def is_program(self) -> bool:
        """True for an exported program, whose dynamic axes are settled."""
        return self.tree is not None

    def run(self, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
        """The outputs by name, on copies of the inputs; whatever the module raises is passed on.

        One output is called "output"; members of a tuple "output_0" and so on, those of a mapping
        by their keys.

        Raises:
            ModelError: An output is no tensor.
        """
        torch = require()
        pytree = require("torch.utils._pytree")
        given = [tensor.detach().clone() for tensor in tensors]
        args, kwargs = (given, {}) if self.tree is None else pytree.tree_unflatten(given, self.tree)
        with torch.no_grad():
            result = self.module(*args, **kwargs)
        named: dict[str, Tensor] = {}
        for path, value in pytree.tree_flatten_with_path(result)[0]:
            name = self._free("_".join(["output", *map(_step, path)]) if path else "output", named)
            own = "_".join(map(_step, path))
            if own.isidentifier():
                name = self._free(own, named)
            if isinstance(value, torch.Tensor):
                named[name] = value.detach().clone()
            elif value is not None:
                raise ModelError(f"output {name!r} is a {type(value).__name__}, not a tensor")
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
        except ModelError:
            raise
        except Exception as error:  # the module is the user's, and may raise anything
            raise ModelError(f"the module cannot run on {shapes}: {said(error)}") from error
        if not outputs:
            raise ModelError("the module returns no tensor")
        for name, value in outputs.items():
            other = again.get(name)
            same = other is not None and other.shape == value.shape
            if not same or not torch.allclose(value, other, rtol=0, atol=0, equal_nan=True):
                raise ModelError(
                    f"output {name!r} is another one at every run: dropout, noise or a state that "
                    "eval() does not switch off"
                )
        return outputs

    def in_float64(self) -> Subject | None:
        """The same in float64; None where the module cannot be copied."""
        try:
            with quiet():
                return replace(self, module=copy.deepcopy(self.module).double())
        except Exception:  # the module is the user's, and copying it may raise anything
            return None

    def _free(self, name: str, taken: dict[str, Tensor]) -> str:
        """A name that no input and no other output has."""
        while name in self.names or name in taken:
            name += "_"
        return name


def _step(key: Any) -> str:
    """One step of the path to an output: a key, an index or a field."""
    return str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))


def of_module(module: Module, tensors: Sequence[Tensor], names: Sequence[str] | None) -> Subject:
    """A module in eval mode.

    Raises:
        ModelError: It stays in training mode, or the names are too many, too few or not distinct.
    """
    parts = module.named_modules()
    training = [n or type(m).__name__ for n, m in parts if getattr(m, "training", False)]
    if training:
        raise ModelError(f"{training[0]!r} stays in training mode when eval() is called")
    parameters, fixed = _parameters(module, len(tensors))
    found = parameters if names is None else tuple(names)
    if len(found) != len(tensors) or len(set(found)) < len(found) or not all(found):
        raise ModelError(
            f"{len(tensors)} inputs, but names for {len(found)}: {', '.join(found) or 'none'}"
        )
    return Subject(module, module, found, fixed)


def of_program(
    program: Any, names: Sequence[str] | None
) -> tuple[Subject, tuple[Tensor, ...], Axes]:
    """An exported program, the example inputs that it holds, and its dynamic axes.

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
    inputs = tuple(program.graph_signature.user_inputs)
    found = inputs if names is None else tuple(names)
    if len(found) != len(leaves):
        raise ModelError(f"{len(leaves)} inputs, but names for {len(found)}: {', '.join(found)}")
    shapes = {n.name: n.meta["val"].shape for n in program.graph.nodes if n.op == "placeholder"}
    axes = tuple(
        {axis: str(n) for axis, n in enumerate(shapes[name]) if not isinstance(n, int)}
        for name in inputs
    )
    subject = Subject(program, program.module(), found, len(found), tree)
    return subject, tuple(leaves), axes


@contextmanager
def evaluating(module: Module) -> Iterator[None]:
    """The module in eval mode; afterwards modes, parameters, buffers and generator are as before.

    Raises:
        ModelError: eval() fails.
    """
    torch = require()
    modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    tensors = {k: v for k, v in module.state_dict().items() if isinstance(v, torch.Tensor)}
    lazy = any(torch.nn.parameter.is_lazy(value) for value in tensors.values())
    saved = {} if lazy else {key: value.detach().clone() for key, value in tensors.items()}
    with torch.random.fork_rng(devices=[]):
        try:
            try:
                module.eval()
            except Exception as error:  # the module is the user's, and may raise anything
                raise ModelError(f"the module's eval() failed: {said(error)}") from error
            yield
        finally:
            _restore(modes, tensors, saved)


def _restore(
    modes: Sequence[tuple[Module, bool]], tensors: dict[str, Tensor], saved: dict[str, Tensor]
) -> None:
    """A train() that does more than set a mode, as LoRA's, is told of the mode it was in."""
    torch = require()
    for part, training in modes:
        if type(part).train is not torch.nn.Module.train and part.training != training:
            part.train(training)
    for part, training in modes:
        if part.training != training:
            part.training = training
    with torch.no_grad():
        for key, value in saved.items():
            tensors[key].copy_(value)


def _parameters(module: Module, count: int) -> tuple[tuple[str, ...], int]:
    """Names of the first parameters of forward(), and from which on they are members of *args."""
    kinds = inspect.Parameter
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # a compiled one tells no names
        return tuple(f"input_{index}" for index in range(count)), count
    named = [
        p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    ]
    fixed = min(len(named), count)
    if any(p.kind is kinds.VAR_POSITIONAL for p in parameters):
        named += [f"input_{index}" for index in range(len(named), count)]
    if count > len(named):
        raise ModelError(f"{count} inputs are given, but forward() takes {len(named)}")
    return tuple(named[:count]), fixed


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
