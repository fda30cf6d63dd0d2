"""Whole networks of models/, end to end: every block becomes one Conv, and the function is kept.

The oracle of structure is the authors' deploy form, sent through the same exporter; the oracles of
values are the training form and the deploy form, in PyTorch and float64. Models run on ONNX Runtime
with its graph optimizations off, so that no fusion of the runtime hides one of ours.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import torch
from torch import nn

import models
import onnxfuse
from models.acnet import asymmetric_block
from models.exporting import FORMS, Form, export
from models.mobileone import mobileone_block
from models.repvgg import repvgg_block
from models.three_branch import three_branch_block
from onnxfuse.pipeline import STEPS
from onnxfuse.rewrites import LAST
from tests.integration.exported import (
    ERROR_RATIO,
    FLOAT32_ROUNDOFF,
    LARGEST_DISTANCE,
    Fused,
    count,
    distances,
    noise,
    run,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# Training form: Conv, Add, BatchNormalization and all nodes, as exported with the exporter's own
# folding; without it, each Conv has a BatchNormalization besides.
EXPORTED = {
    "repvgg_a0": (44, 39, 17, 125),
    "repvgg_b1g4": (56, 51, 23, 161),
    "mobileone_s0": (191, 183, 35, 455),
    "mobileone_s1": (65, 56, 34, 201),
    "acnet_resnet18": (52, 40, 0, 113),
    "three_branch": (12, 9, 3, 33),
}
# Blocks written as data movement: Conv and ScatterND, whatever the exporter adds around them.
MOVING = {"dbb_resnet18": (84, 128), "ecbsr_m4c16": (54, 96)}
# Deploy form, one Conv per block: Conv, Add and all nodes, as torch's default exporter has them.
DEPLOYED = {
    "repvgg_a0": (22, 0, 47),
    "repvgg_b1g4": (28, 0, 59),
    "mobileone_s0": (43, 0, 89),
    "mobileone_s1": (43, 0, 89),
    "acnet_resnet18": (20, 8, 49),
    "dbb_resnet18": (20, 8, 49),
    "ecbsr_m4c16": (6, 1, 16),
    "three_branch": (6, 0, 15),
}


class Counts(NamedTuple):
    """Conv in training form, BatchNormalization where none is folded, and Conv in deploy form."""

    convs: int
    norms: int
    deployed: int


# What the newer networks have in every form; their other nodes depend on the exporter.
COUNTED = {
    "qarepvgg_a0": Counts(44, 44, 22),
    "unireplknet_a": Counts(91, 84, 41),
    "separable_net": Counts(25, 29, 13),
    "dsconv_net": Counts(6, 6, 6),
    "im2col_net": Counts(0, 6, 6),
    "rep_detector": Counts(26, 30, 15),
    "csp_detector": Counts(54, 61, 42),
    "lcnet_rep": Counts(35, 36, 17),
}

EXAMPLE_SHAPE = (2, 3, 96, 64)
LARGE = ("acnet_resnet18", "mobileone_s0", "repvgg_a0")
DEFAULT_OF_LARGE = {"repvgg_a0": ("script_unfolded", True)}
CI_OF_LARGE = {
    "acnet_resnet18": ("script_unfolded", True),
    "mobileone_s0": ("script_unfolded", True),
    "repvgg_a0": ("script", True),
}
ONE_EXPORT = ("csp_detector", "lcnet_rep")  # by default; of the second one more in CI

# On feature maps of six pixels the mean over channels, and what is added to it, are a 1x1 Conv.
LARGER_SHAPES = {"unireplknet_a": (2, 3, 160, 128)}
DYNAMIC_SHAPES = (EXAMPLE_SHAPE, (1, 3, 64, 80), (3, 3, 48, 64))

BEHIND_FOLDS = {"softmaxes", *LAST}

SHIPPED_MODEL = Path(models.__file__).parent / "three_branch.onnx"
SHIPPED_BYTES = 300_000


# --- networks ---


class Case(NamedTuple):
    name: str
    form: Form
    dynamic: bool

    def __str__(self) -> str:
        return f"{self.name}-{self.form}-{'dynamic' if self.dynamic else 'fixed'}"

    @property
    def is_frozen(self) -> bool:
        """True where the exporter writes the example's sizes into constants, dynamic or not.

        So it does with what is assigned to slices; the model then runs at no other size.
        """
        return self.name in MOVING and self.form != "dynamo"

    @property
    def marks(self) -> tuple[pytest.MarkDecorator, ...]:
        """Which run has the case.

        The default run has every export of the smallest network but one, and of the others one or
        two by the tracing exporter, which takes no time, or none. Of the large networks CI has one
        or two exports, where these take less than half a minute, or none; the nightly run has the
        others: torch's default exporter alone takes minutes for large networks if they are dynamic,
        and for slices that are assigned to. All tests of an export go to one worker.
        """
        if self.name in ("repvgg_b1g4", "mobileone_s1", "unireplknet_a", *MOVING):
            in_ci = (self.form, self.dynamic) == ("script_unfolded", True)
            in_ci &= self.name == "mobileone_s1"
            return (pytest.mark.slow if in_ci else pytest.mark.nightly,)
        if self.form == "dynamo" and self.name in LARGE:
            in_ci = not self.dynamic and self.name == "repvgg_a0"
            return (pytest.mark.slow if in_ci else pytest.mark.nightly,)
        if self.name in LARGE and (self.form, self.dynamic) != DEFAULT_OF_LARGE.get(self.name):
            in_ci = (self.form, self.dynamic) == CI_OF_LARGE[self.name]
            return (pytest.mark.slow if in_ci else pytest.mark.nightly,)
        if self.name in ONE_EXPORT:
            if (self.form, self.dynamic) == ("script_unfolded", True):
                return ()
            in_ci = (self.name, self.form, self.dynamic) == ("lcnet_rep", "dynamo", False)
            return (pytest.mark.slow if in_ci else pytest.mark.nightly,)
        if self.name in COUNTED:
            if self.form == "dynamo":
                in_ci = not self.dynamic and self.name != "qarepvgg_a0"
                return (pytest.mark.slow if in_ci else pytest.mark.nightly,)
            fast = self.dynamic == (self.form == "script_unfolded")
            fast &= not self.dynamic or self.name not in ("qarepvgg_a0", "im2col_net")
            return () if fast else (pytest.mark.slow if self.dynamic else pytest.mark.nightly,)
        slow = self.form == "dynamo" or not self.dynamic
        by_default = self.name == "three_branch" and (self.form, self.dynamic) != ("dynamo", True)
        return (pytest.mark.slow,) if slow and not by_default else ()


CASES = [
    pytest.param(case, id=str(case), marks=(*case.marks, pytest.mark.xdist_group(str(case))))
    for name in models.ZOO
    for form in FORMS
    for dynamic in (False, True)
    for case in [Case(name, form, dynamic)]
]


@pytest.fixture(scope="module", params=CASES)
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="module")
def fused(case) -> Fused:
    fixed = (LARGER_SHAPES.get(case.name, EXAMPLE_SHAPE),) * 3
    shapes = DYNAMIC_SHAPES if case.dynamic and not case.is_frozen else fixed
    return Fused.of(models.build(case.name), case.form, case.dynamic, shapes)


def test_export_is_the_multi_branch_form(case, fused):
    operators = count(fused.original)
    if case.name in MOVING:
        assert (operators["Conv"], operators["ScatterND"]) == MOVING[case.name]
        return
    if case.name in COUNTED:
        assert operators["Conv"] == COUNTED[case.name].convs
        norms = operators["BatchNormalization"]
        assert 0 < norms <= COUNTED[case.name].norms
        assert norms == COUNTED[case.name].norms or case.form != "script_unfolded"
        return
    conv, add, norm, nodes = EXPORTED[case.name]
    if case.form == "script_unfolded":
        norm, nodes = norm + conv, nodes + conv
    assert (operators["Conv"], operators["Add"], operators["BatchNormalization"]) == (
        conv,
        add,
        norm,
    )
    assert operators.total() == nodes


def test_every_block_becomes_one_conv(case, fused):
    deploy = models.reparameterize(fused.module)
    exported = export(deploy, fused.inputs[0], case.form, case.dynamic)
    expected, actual = count(exported), count(fused.result)
    if case.name in COUNTED:
        assert expected["Conv"] == COUNTED[case.name].deployed
    else:
        conv, add, nodes = DEPLOYED[case.name]
        assert (expected["Conv"], expected["Add"]) == (conv, add)
        assert expected.total() == nodes or case.name == "ecbsr_m4c16"
    if any(fold.step in BEHIND_FOLDS for fold in fused.folds):
        others = set(STEPS) - BEHIND_FOLDS
        expected = count(onnxfuse.optimize(exported, skip=others).model)
    if case.name in COUNTED:
        assert actual["Add"] <= expected["Add"]
    else:
        assert actual["Add"] == expected["Add"]
    assert actual["Conv"] == expected["Conv"]
    assert actual["BatchNormalization"] == 0
    assert actual.total() <= expected.total() - expected["Constant"]


def test_result_is_a_valid_model(fused):
    onnx.checker.check_model(fused.result, full_check=True)
    assert list(fused.result.graph.input) == list(fused.original.graph.input)
    assert list(fused.result.graph.output) == list(fused.original.graph.output)


def test_outputs_agree(fused):
    fused.assert_outputs_agree()


def test_deploy_form_agrees(fused):
    fused.assert_deploy_form_agrees()


def test_error_is_at_most_twice_the_originals(fused):
    fused.assert_error_is_bounded()


def test_optimizing_the_result_changes_nothing(fused):
    fused.assert_fixed_point()


# --- single blocks, in one, two and three dimensions ---

SIZES = {1: (11,), 2: (7, 10), 3: (4, 5, 7)}
OTHER_SIZES = {1: (8,), 2: (6, 5), 3: (5, 4, 3)}


class Block(NamedTuple):
    make: Callable[[], nn.Module]
    rank: int = 2
    activation: bool = True


BLOCKS = {
    **{
        f"plain-{rank}d-groups{groups}": Block(
            partial(three_branch_block, 6, groups, rank), rank, activation=False
        )
        for rank in SIZES
        for groups in (1, 3)
    },
    **{
        f"normed-{rank}d-groups{groups}": Block(
            partial(repvgg_block, 6, 6, groups=groups, rank=rank), rank
        )
        for rank in SIZES
        for groups in (1, 3)
    },
    "stride": Block(partial(repvgg_block, 6, 9, stride=2, groups=3)),
    "asymmetric": Block(partial(asymmetric_block, 6, 9), activation=False),
    "depthwise": Block(partial(mobileone_block, 6, 6, 3, 1, 6, conv_branches=4)),
    "pointwise": Block(partial(mobileone_block, 6, 6, 1, conv_branches=4)),
}


# torch's default exporter takes a second or two, however small the block.
DYNAMO_BY_DEFAULT = ("plain-1d-groups1", "plain-2d-groups3", "plain-3d-groups1")
BLOCK_CASES = [
    pytest.param(
        name,
        form,
        id=f"{name}-{form}",
        marks=pytest.mark.slow if form == "dynamo" and name not in DYNAMO_BY_DEFAULT else (),
    )
    for name in BLOCKS
    for form in FORMS
]


@pytest.mark.parametrize(("name", "form"), BLOCK_CASES)
def test_a_block_becomes_one_conv(name, form):
    block = BLOCKS[name]
    shapes = [(2, 6, *SIZES[block.rank]), (3, 6, *OTHER_SIZES[block.rank])]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = block.make()
    models.randomize_statistics(module, (8, *shapes[0][1:]))
    fused = Fused.of(module, form, True, shapes)
    assert count(fused.result) == Counter(["Conv", "Relu"] if block.activation else ["Conv"])
    fused.assert_outputs_agree()
    # A skip that is added last is rounded once; inside the kernel it is part of most partial sums
    # of one dot product, whose roundings add up like a random walk.
    products = 6 * 3**block.rank
    fused.assert_error_is_bounded(floor=FLOAT32_ROUNDOFF * products**0.5 / ERROR_RATIO)
    fused.assert_fixed_point()


# --- the model in the repository ---


def test_shipped_model_becomes_one_conv_per_block():
    assert SHIPPED_MODEL.stat().st_size < SHIPPED_BYTES
    original = onnx.load(SHIPPED_MODEL)
    assert count(original)["BatchNormalization"] == 15
    result = onnxfuse.optimize(original).model
    operators = count(result)
    assert (operators["Conv"], operators["Add"], operators.total()) == DEPLOYED["three_branch"]
    inputs = [noise(shape, seed=1) for shape in ((1, 3, 32, 32), (5, 3, 32, 32))]
    assert max(distances(run(result, inputs), run(original, inputs))) < LARGEST_DISTANCE
