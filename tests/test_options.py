"""The plan of real regions against exhaustive search over the same options."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxfuse.graph import Graph
from onnxfuse.options import components
from onnxfuse.plan import cover
from onnxfuse.regions import find_regions
from onnxfuse.shapes import infer_types
from tests.test_plan import cost_of

NODES = 9


def random_region(seed, nodes):
    """A graph of Convs, BatchNormalizations, scales and Adds over channels of random width."""
    rng = np.random.default_rng(seed)
    made, weights, tensors = [], [], [("x", int(rng.choice([4, 16, 48])))]

    def constant(*shape):
        name = f"w{len(weights)}"
        value = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        weights.append(numpy_helper.from_array(value, name))
        return name

    for index in range(nodes):
        name = f"t{index}"
        source, channels = tensors[rng.integers(max(0, len(tensors) - 4), len(tensors))]
        same = [n for n, c in tensors if c == channels and n != source]
        kind = rng.choice(["conv", "conv", "norm", "scale", "add"])
        if kind == "add" and same:
            made.append(helper.make_node("Add", [source, str(rng.choice(same))], [name]))
        elif kind == "norm":
            made.append(
                helper.make_node(
                    "BatchNormalization", [source, *(constant(channels) for _ in range(4))], [name]
                )
            )
        elif kind == "scale":
            made.append(helper.make_node("Mul", [source, constant(channels, 1, 1)], [name]))
        else:
            out, kernel = int(rng.choice([4, 16, 48])), int(rng.choice([1, 1, 3]))
            weight = constant(out, channels, kernel, kernel)
            pads = [kernel // 2] * 4
            made.append(helper.make_node("Conv", [source, weight], [name], pads=pads))
            channels = out
        tensors.append((name, channels))
    used = {n for node in made for n in node.input}
    outputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None)
        for n, _ in tensors[1:]
        if n not in used or rng.random() < 0.15
    ]
    graph = helper.make_graph(
        made,
        "region",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", tensors[0][1], 24, 24])],
        outputs,
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def check_best(seed, nodes):
    model = random_region(seed, nodes)
    graph = Graph(model.graph, 17, 8, types=infer_types(model))
    for component in components(find_regions(graph)):
        options = [component.options[name] for name in component.order]
        best = min(
            cost_of(dict(zip(component.order, picked, strict=True)), component.required)
            for picked in itertools.product(*options)
        )
        taken = cover(component.order, component.options, component.required)
        total = sum(option.cost for option in taken.values())
        assert total <= 1.02 * best


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_plan_of_a_region_is_within_two_percent_of_the_best(seed):
    check_best(seed, NODES)


@pytest.mark.nightly
@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_plan_of_twelve_nodes_is_within_two_percent_of_the_best(seed):
    check_best(seed, 12)


def test_a_wide_bottleneck_is_kept_and_a_narrow_one_is_not():
    def folded(narrow):
        weights = [
            numpy_helper.from_array(np.ones((narrow, 256, 1, 1), np.float32), "a"),
            numpy_helper.from_array(np.ones((256, narrow, 1, 1), np.float32), "b"),
        ]
        nodes = [
            helper.make_node("Conv", ["x", "a"], ["mid"]),
            helper.make_node("Conv", ["mid", "b"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            "bottleneck",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256, 56, 56])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        index = Graph(model.graph, 17, 8, types=infer_types(model))
        (component,) = components(find_regions(index))
        return cover(component.order, component.options, component.required)["y"].choice >= 0

    assert not folded(32)
    assert folded(512)
