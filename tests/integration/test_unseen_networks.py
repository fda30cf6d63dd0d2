"""Networks that nothing in onnxfuse was written for, from published architectures, made small.

Each is exported in every form, fixed and dynamic, with random BatchNorm statistics, and checked for
what must hold of every model, and for the number of operators of each kind that are left.
"""

import contextlib
import copy
import io
import zlib
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import onnxfuse
from models.exporting import FORMS, export
from models.statistics import randomize_statistics
from tests.integration.unseen import NETWORKS, OTHER, TRACKED

pytestmark = pytest.mark.usefixtures("one_thread")

LARGEST_DISTANCE = 1e-5  # relative L2, between two float32 models that compute the same


def marks(name: str, form: str, dynamic: bool) -> tuple[pytest.MarkDecorator, ...]:
    """Which run has an export.

    The default run has two of each network by the tracing exporter; CI has one of torch's default
    exporter besides, every other network's with dynamic axes, and the nightly run the others.
    """
    if form != "dynamo":
        return () if (form == "script") == dynamic else (pytest.mark.nightly,)
    is_second = list(NETWORKS).index(name) % 2 == 1
    in_ci = dynamic == (is_second and NETWORKS[name].varies)
    return (pytest.mark.slow if in_ci else pytest.mark.nightly,)


CASES = [
    pytest.param(
        name,
        form,
        dynamic,
        id=f"{name}-{form}-{'dynamic' if dynamic else 'fixed'}",
        marks=marks(name, form, dynamic),
    )
    for name, network in NETWORKS.items()
    for form in FORMS
    for dynamic in (False, True)
    if network.varies or not dynamic
]


def trained(name: str) -> nn.Module:
    network = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        module = network.make().eval()
        randomize_statistics(module, (8, *network.shape[1:]))
    return module.requires_grad_(False)


def exported(module: nn.Module, x: torch.Tensor, form: str, dynamic: bool) -> onnx.ModelProto:
    with contextlib.redirect_stdout(io.StringIO()):
        return export(module, x, form, dynamic)


def run(model: onnx.ModelProto, x: torch.Tensor) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"input": x.numpy()})[0]


def distance(actual: np.ndarray, expected: np.ndarray) -> float:
    wide = expected.astype(np.float64)
    return float(np.linalg.norm(actual - wide) / np.linalg.norm(wide))


@pytest.mark.parametrize(("name", "form", "dynamic"), CASES)
def test_unseen_network(name, form, dynamic):
    network, module = NETWORKS[name], trained(name)
    shapes = [network.shape, OTHER[len(network.shape)]] if dynamic else [network.shape]
    inputs = [torch.randn(s, generator=torch.Generator().manual_seed(1)) for s in shapes]
    original = exported(module, inputs[0], form, dynamic)

    result = onnxfuse.optimize(original)

    onnx.checker.check_model(result.model, full_check=True)
    assert list(result.model.graph.output) == list(original.graph.output)
    assert len(result.model.graph.node) <= len(original.graph.node)
    operators = Counter(node.op_type for node in result.model.graph.node)
    if network.left:
        wanted = {
            op: network.left.get(op, 0) for op in TRACKED if op != "Add" or op in network.left
        }
        assert {op: operators[op] for op in wanted} == wanted
    exact = copy.deepcopy(module).double()
    for x in inputs:
        actual, expected, truth = run(result.model, x), run(original, x), exact(x.double()).numpy()
        assert distance(actual, expected) < LARGEST_DISTANCE
        assert distance(actual, truth) <= 2 * max(distance(expected, truth), 2.0**-22)
    again = onnxfuse.optimize(result.model)
    assert not again.report.folds
    assert again.model.SerializeToString() == result.model.SerializeToString()
