"""Sparse weights."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxfuse import ModelError, quantize
from onnxfuse.quantization.dense import dense
from tests.quantization.building import QUICK, constant, images, network
from tests.quantization.test_quantize import near


def with_sparse(index, rows=False):
    """The network with every other number of one input of a layer missing, in either notation."""
    model = network()
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    (held,) = (t for t in model.graph.initializer if t.name == gemm.input[index])
    value = numpy_helper.to_array(held).copy()
    value.reshape(-1)[::2] = 0
    places = np.argwhere(value) if rows else np.flatnonzero(value)
    held_values = numpy_helper.from_array(value[value != 0], held.name)
    indices = numpy_helper.from_array(places.astype(np.int64), "places")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(held_values, indices, list(held.dims))
    )
    model.graph.initializer.remove(held)
    return model, held.name, value


@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("index", [1, 2])
def test_sparse_weights_and_biases_are_quantized(index, rows):
    model, name, value = with_sparse(index, rows)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    dense(made, "the model")
    np.testing.assert_array_equal(constant(made, name), value)
    result = quantize(model, {"x": images()}, weight_bits=7, **QUICK)
    assert all(q.count == q.total for q in result.report.operators)
    assert near(made, result.model, {"x": images(seed=1)})


@pytest.mark.parametrize("rows", [False, True])
def test_refuses_places_outside(rows):
    model, _, _ = with_sparse(1, rows)
    indices = model.graph.sparse_initializer[0].indices
    places = numpy_helper.to_array(indices).copy()
    places[-1] = 1000
    indices.CopyFrom(numpy_helper.from_array(places, "places"))
    with pytest.raises(ModelError, match="places outside of it"):
        dense(model, "the model")


def test_refuses_what_is_too_large():
    model, _, _ = with_sparse(1)
    model.graph.sparse_initializer[0].dims[:] = [1 << 20, 1 << 20]
    with pytest.raises(ModelError, match="too large"):
        dense(model, "the model")
