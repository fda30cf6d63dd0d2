"""Convolutions over one tensor that stay by themselves, named after what they lack."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxfuse
from onnxfuse.pipeline import optimize_with
from onnxfuse.rewrites import measured
from tests.lift.building import Builder
from tests.lift.comparing import Folded, optimized
from tests.rewrites.cut import SIZES, K, start
from tests.rewrites.test_merges import COUNTS, LARGER, ends, heads


def kept(b: Builder, *outputs: str, sizes=SIZES, **options: object) -> Folded:
    folded = optimized(b.model(*outputs), *sizes, **options)
    assert not made(folded.report)
    return folded


def made(report: onnxfuse.Report) -> list[str]:
    return [fold.target for fold in report.folds if fold.step == "merges"]


def unrun(model: onnx.ModelProto) -> None:
    """For models that no runtime takes."""
    assert not made(onnxfuse.optimize(model).report)


# The convolutions --------------------------------------------------------------------------------


def test_refuses_one_alone():
    b = Builder()
    kept(b, *ends(b, *heads(b, start(b), (4,))))


def test_refuses_other_tensors():
    b = Builder()
    kept(b, *ends(b, *(b.conv(start(b, name=name), K, 4, (1, 1)) for name in "xyz")))


OTHERS = {
    "kernels": [{"kernel": (1, 3)}, {"kernel": (3, 1)}],
    "strides": [{"strides": [2, 1]}, {"strides": [1, 2]}],
    "dilations": [{"kernel": (2, 2), "dilations": [d, 1]} for d in (1, 2)],
    "pads": [{"pads": [1, 0, 0, 0]}, {"pads": [0, 0, 1, 0]}],
    "paddings": [
        {"kernel": (2, 2), "auto_pad": "SAME_UPPER"},
        {"kernel": (2, 2), "auto_pad": "SAME_LOWER"},
    ],
    "padding and none": [{"kernel": (2, 2), "auto_pad": "SAME_UPPER"}, {"kernel": (2, 2)}],
}


@pytest.mark.parametrize("how", OTHERS)
def test_refuses_other_windows(how):
    b = Builder()
    x = start(b)
    ys = [b.conv(x, K, 4, way.pop("kernel", (1, 1)), **way) for way in map(dict, OTHERS[how])]
    kept(b, *ends(b, *ys), sizes=LARGER)


@pytest.mark.parametrize("what", ["weight", "bias"])
def test_refuses_what_is_computed(what):
    b = Builder()
    x = start(b)
    ys = []
    for name in "vw":
        given = [b.random(4, K, 1, 1), b.random(4)]
        place = ["weight", "bias"].index(what)
        size = b.input("one", name=name)
        given[place] = b.op("Mul", given[place], b.op("ReduceMean", size, axes=[0]))
        ys.append(b.op("Conv", x, *given))
    kept(b, *ends(b, *ys), sizes=[{**size, "one": 1} for size in SIZES])


def test_refuses_groups():
    b = Builder()
    x = start(b)
    kept(b, *ends(b, *(b.conv(x, K, 4, (1, 1), group=2) for _ in range(3))))


@pytest.mark.parametrize("dimensions", [1, 3])
def test_refuses_other_dimensions(dimensions):
    b = Builder()
    size = ["h", "w", 3][:dimensions]
    x = b.op("Tanh", b.input("n", K, *size))
    kept(b, *ends(b, *(b.conv(x, K, 4, (1,) * dimensions) for _ in range(3))))


def test_refuses_what_nobody_needs():
    b = Builder()
    x = start(b)
    first, *_ = heads(b, x)
    kept(b, *ends(b, first))


def test_refuses_initializers_that_callers_may_override():
    b = Builder()
    model = b.model(*ends(b, *heads(b, start(b))), list_initializers=True, ir_version=4)
    assert not made(onnxfuse.optimize(model).report)


def test_refuses_a_graph_that_takes_no_initializers():
    b = Builder(8)
    model = b.model(*ends(b, *heads(b, start(b))), list_initializers=True, ir_version=3)
    assert not made(onnxfuse.optimize(model).report) or len(model.graph.input) > 1


@pytest.mark.parametrize("domain", ["custom", "ai.onnx.ml"])
def test_refuses_other_domains(domain):
    b = Builder()
    model = b.model(*ends(b, *heads(b, start(b))))
    model.opset_import.append(helper.make_opsetid(domain, 1))
    shapes = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.domain = domain
            model.graph.value_info.extend(shapes[name] for name in node.output)
    unrun(model)


# Whether it pays ---------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(16, 16), (8, 8), (8, 24, 64), (16, 4), (15, 15), (12, 12)])
def test_refuses_as_many_blocks(counts):
    """In blocks of 8 channels, or of 16, or of either."""
    b = Builder()
    kept(b, *ends(b, *heads(b, start(b), counts)))


def test_refuses_a_gain_below_what_was_measured_to_pay():
    """9 blocks of 8 channels together, 10 apart; 5 and 6 of 16."""
    b = Builder()
    assert measured.paying_from("merges") > 10 / 9
    model = b.model(*ends(b, *heads(b, start(b), (36, 36))))
    assert not made(onnxfuse.optimize(model).report)
    assert optimize_with("merges sooner", model).report.folds


# Proofs, options ---------------------------------------------------------------------------------


def test_refuses_what_is_no_number():
    b = Builder()
    ys = [b.op("Log", y) for y in heads(b, start(b))]
    result = onnxfuse.optimize(b.model(*(b.op("Flatten", y) for y in ys)))
    assert not made(result.report)
    reasons = [refusal.reason for refusal in result.report.refusals if refusal.operator == "Conv"]
    assert "it cannot be certified: it makes what is no number" in reasons


def test_refuses_windows_that_reach_too_far():
    b = Builder()
    x = start(b, 2)
    weights = [b.constant(np.ones((4, 2, 127, 127))) for _ in COUNTS]
    ys = [b.op("Conv", x, weight, pads=[63] * 4) for weight in weights]
    result = onnxfuse.optimize(b.model(*ends(b, *ys)))
    assert not made(result.report)
    assert any("reaches too far" in refusal.reason for refusal in result.report.refusals)


@pytest.mark.parametrize("op", ["Conv", "Split", "merges"])
def test_refuses_what_is_skipped(op):
    b = Builder()
    kept(b, *ends(b, *heads(b, start(b))), skip=[op])


def test_what_is_skipped_stays_behind():
    b = Builder()
    ys = [b.op("Relu", y) for y in heads(b, start(b))]
    folded = optimized(b.model(*(b.op("Flatten", y) for y in ys)), *SIZES, skip=["Relu"])
    assert [fold.nodes for fold in folded.report.folds] == [("Conv", "Split")]


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_types_that_runtimes_lack(kind):
    b = Builder(13, elem_type=kind)
    report = onnxfuse.optimize(b.model(*ends(b, *heads(b, start(b))))).report
    assert len(made(report)) == 1
