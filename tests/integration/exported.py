"""Modules, their exports, what onnxfuse makes of them, and how far the three are apart.

The oracles of values are the module and its authors' deploy form, in PyTorch and float64. Models
run on ONNX Runtime with its graph optimizations off, so that no fusion of the runtime hides one of
ours.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

import onnxfuse
from models.branches import reparameterize
from models.exporting import Form, export
from onnxfuse.fold import Fold

# Relative L2, between two float32 models that compute the same.
LARGEST_DISTANCE = 1e-5
# And between two that do so in float64: they differ by about 1e-14, and by more than 1e-5 where one
# tap or one channel is wrong.
LARGEST_FLOAT64_DISTANCE = 1e-9

# The fused model rounds its weights once, where the original rounds after every branch: errors of
# one kind and size, so 2 bounds their ratio. It is taken between means over several inputs, since
# the error on one of them is a random number; and an original that happens to be more exact than
# one rounding of its output is no measure.
ERROR_RATIO = 2
FLOAT32_ROUNDOFF = 2.0**-24


def noise(shape: Sequence[int], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(model: onnx.ModelProto, inputs: Sequence[torch.Tensor]) -> list[list[np.ndarray]]:
    """The outputs for each input."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return [session.run(None, {name: x.numpy()}) for x in inputs]


@torch.no_grad()
def run_exactly(module: nn.Module, inputs: Sequence[torch.Tensor]) -> list[list[np.ndarray]]:
    """The outputs of a module in float64 for each input."""
    outputs = [module(x.double()) for x in inputs]
    return [[y.numpy() for y in ([o] if isinstance(o, torch.Tensor) else o)] for o in outputs]


def distances(
    actual: Sequence[Sequence[np.ndarray]], expected: Sequence[Sequence[np.ndarray]]
) -> list[float]:
    """Relative L2 distance, one for each input: that of the output which is farthest."""
    return [
        max(
            float(np.linalg.norm(a.astype(np.float64) - e) / np.linalg.norm(e))
            for a, e in zip(outputs, wanted, strict=True)
        )
        for outputs, wanted in zip(actual, expected, strict=True)
    ]


def count(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@dataclass(frozen=True)
class Fused:
    """A module, its export, what onnxfuse made of it and by which folds, and all outputs."""

    module: nn.Module
    original: onnx.ModelProto
    result: onnx.ModelProto
    inputs: tuple[torch.Tensor, ...]
    folds: tuple[Fold, ...]

    @classmethod
    def of(
        cls, module: nn.Module, form: Form, dynamic: bool, shapes: Sequence[Sequence[int]]
    ) -> "Fused":
        """Exports `module` for inputs of the first of `shapes`, and optimizes the export."""
        inputs = tuple(noise(shape, seed) for seed, shape in enumerate(shapes, start=1))
        original = export(module, inputs[0], form, dynamic)
        made = onnxfuse.optimize(original)
        return cls(module, original, made.model, inputs, made.report.folds)

    @cached_property
    def original_outputs(self) -> list[list[np.ndarray]]:
        return run(self.original, self.inputs)

    @cached_property
    def result_outputs(self) -> list[list[np.ndarray]]:
        return run(self.result, self.inputs)

    @cached_property
    def true_outputs(self) -> list[list[np.ndarray]]:
        return run_exactly(copy.deepcopy(self.module).double(), self.inputs)

    @cached_property
    def deploy_outputs(self) -> list[list[np.ndarray]]:
        return run_exactly(reparameterize(copy.deepcopy(self.module).double()), self.inputs)

    def assert_outputs_agree(self) -> None:
        assert max(distances(self.result_outputs, self.original_outputs)) < LARGEST_DISTANCE

    def assert_deploy_form_agrees(self) -> None:
        between_oracles = distances(self.deploy_outputs, self.true_outputs)
        assert max(between_oracles) < LARGEST_FLOAT64_DISTANCE
        assert max(distances(self.result_outputs, self.deploy_outputs)) < LARGEST_DISTANCE

    def assert_error_is_bounded(self, floor: float = FLOAT32_ROUNDOFF) -> None:
        before = np.mean(distances(self.original_outputs, self.true_outputs))
        after = np.mean(distances(self.result_outputs, self.true_outputs))
        assert after <= ERROR_RATIO * max(before, floor)

    def assert_fixed_point(self) -> None:
        again = onnxfuse.optimize(self.result).model
        assert again.SerializeToString() == self.result.SerializeToString()
