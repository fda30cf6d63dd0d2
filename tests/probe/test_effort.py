"""What may be spent on probing one model, over all that is searched in it."""

from __future__ import annotations

import onnx
import pytest

from onnxfuse.graph import Graph
from onnxfuse.probe import Effort, Probes, Search
from onnxfuse.probe.impulse import TOO_MUCH
from onnxfuse.probe.sizes import model_settings
from onnxfuse.shapes import infer_types
from tests.lift.building import Builder
from tests.probe.building import C, H, W, cut, im2col

PLENTY = 1 << 40


def windows(seed: int = 0, kernel: tuple[int, ...] = (3, 3)) -> onnx.ModelProto:
    b = Builder(seed=seed)
    return b.model(b.op("Relu", im2col(b, b.input(1, C, H, W), (H, W), kernel)))


def of_any_size() -> onnx.ModelProto:
    """Taps scaled and summed, so that further sizes are evaluated too."""
    b = Builder()
    x = b.input("n", C, "h", "w")
    far = cut(b, x, [2, 3], [1, 1], [1 << 40] * 2)
    near = cut(b, x, [2, 3], [0, 0], [-1, -1])
    y = b.op("Add", b.op("Mul", far, b.random(C, 1, 1)), b.op("Mul", near, b.random(C, 1, 1)))
    return b.model(b.op("Relu", b.op("Transpose", b.op("Transpose", y))))


def searched(model: onnx.ModelProto, effort: Effort) -> Probes:
    graph = Graph(
        model.graph, model.opset_import[0].version, model.ir_version, types=infer_types(model)
    )
    return Search(graph, lambda: model_settings(model), frozenset(), effort).run()


def spent(model: onnx.ModelProto) -> int:
    effort = Effort(left=PLENTY)
    assert searched(model, effort).found
    return PLENTY - effort.left


@pytest.mark.parametrize("model", [windows(), of_any_size()], ids=["known", "any"])
def test_refuses_without_effort_what_is_found_with_it(model):
    (target,) = searched(model, Effort(left=PLENTY)).found
    none = searched(model, Effort(left=0))
    assert not none.found
    assert none.refusals[target].reason == TOO_MUCH


@pytest.mark.parametrize("model", [windows(), of_any_size()], ids=["known", "any"])
def test_takes_what_it_does_from_what_is_left(model):
    cost = spent(model)
    assert cost > 0
    assert spent(model) == cost
    assert searched(model, Effort(left=8 * cost)).found
    assert not searched(model, Effort(left=cost // 100)).found


def test_takes_what_is_refused_from_what_is_left_too():
    b = Builder()
    x = b.input(1, C, H, W)
    model = b.model(b.op("Relu", b.op("Transpose", b.op("Pad", x, b.constant([0, 0, 1, 1] * 2)))))
    effort = Effort(left=PLENTY)
    assert not searched(model, effort).found
    assert effort.refused
    assert effort.left < PLENTY


def test_two_searches_share_what_is_left():
    first, second = windows(), windows(seed=1)
    effort = Effort(left=PLENTY)
    assert searched(first, effort).found
    assert searched(second, effort).found
    assert PLENTY - effort.left == spent(first) + spent(second)
    effort.left = 0
    assert not searched(windows(seed=2), effort).found


def test_what_one_search_refused_the_next_does_not_try_again():
    model = windows()
    effort = Effort(left=0)
    assert not searched(model, effort).found
    effort.left = PLENTY
    assert not searched(model, effort).found
    assert effort.left == PLENTY
    assert searched(windows(kernel=(1, 3)), effort).found


def test_the_same_nodes_with_other_constants_are_tried_again():
    """Bodies of an If may use the same names."""
    effort = Effort(left=0)
    assert not searched(windows(), effort).found
    effort.left = PLENTY
    other = windows(seed=1)
    assert list(other.graph.node) == list(windows().graph.node)
    assert searched(other, effort).found
