"""What a fold has nothing to do with is in the result as it was, field by field."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxfuse
from tests.io.building import external, rich, unknown_field, value


def scaled() -> onnx.ModelProto:
    """Something in every corner, and a Conv with a scale behind it that folds."""
    model = rich()
    model.graph.node[0].output[0] = "conv"
    scale = np.linspace(0.4, 1.3, 8, dtype=np.float32).reshape(8, 1, 1)
    model.graph.initializer.append(numpy_helper.from_array(scale, "scale"))
    model.graph.node.append(helper.make_node("Mul", ["conv", "scale"], ["scaled"], name="mul"))
    call = helper.make_node("Twice", ["scaled"], ["y"], name="call", domain="org.example")
    call.metadata_props.add(key="layer", value="head")
    call.doc_string = "a call"
    call.MergeFromString(unknown_field(1000, b"from the future"))
    model.graph.node.append(call)
    model.graph.output[0].metadata_props.add(key="layout", value="NCHW")
    return model


REPLACED = ("node", "initializer")


def test_keeps_every_field_that_is_not_folded():
    model = scaled()
    made = onnxfuse.optimize(model).model
    assert [n.op_type for n in made.graph.node] == ["Conv", "Twice"]
    assert made.graph.node[1] == model.graph.node[2]
    for message, other in ((model, made), (model.graph, made.graph)):
        for field in type(message).DESCRIPTOR.fields:
            if field.name not in (*REPLACED, "graph"):
                assert getattr(message, field.name) == getattr(other, field.name), field.name
        stripped = [type(m).FromString(m.SerializeToString()) for m in (message, other)]
        for copy in stripped:
            for name in ("graph", *REPLACED):
                if name in type(copy).DESCRIPTOR.fields_by_name:
                    copy.ClearField(name)
        first, second = (copy.SerializeToString(deterministic=True) for copy in stripped)
        assert first == second, "unknown fields"


@pytest.mark.parametrize("outside", [False, True])
def test_the_file_is_no_larger_and_has_data_beside_it_only_where_the_input_had(tmp_path, outside):
    model = scaled()
    path = tmp_path / "in" / "net.onnx"
    if outside:
        external(model, path.parent)
    else:
        path.parent.mkdir()
        onnx.save(model, path)
    before = sum(file.stat().st_size for file in path.parent.iterdir())
    target = tmp_path / "out" / "net.onnx"
    target.parent.mkdir()
    onnxfuse.optimize(path).save(target)
    beside = ["net.onnx.data"] if outside else []
    assert sorted(os.listdir(target.parent)) == ["net.onnx", *beside]
    assert sum(file.stat().st_size for file in target.parent.iterdir()) < before + 500


def test_symbolic_sizes_keep_their_names():
    model = scaled()
    made = onnxfuse.optimize(model).model
    names = [d.dim_param or d.dim_value for d in made.graph.input[0].type.tensor_type.shape.dim]
    assert names == [d.dim_param or d.dim_value for d in value("x").type.tensor_type.shape.dim]
    assert list(made.graph.input) == list(model.graph.input)
    assert list(made.graph.output) == list(model.graph.output)
