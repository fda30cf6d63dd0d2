"""Ranges of channels, against numpy on the tensors themselves."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from onnxfuse import io
from onnxfuse.calibration import channel_ranges, read_samples
from onnxfuse.runtime import load_model
from tests.quantization.building import images, network


def values(model, names, data):
    """Every tensor of a model, over all samples at once."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    known = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy.SerializeToString(), options)
    return dict(zip(names, session.run(names, {"x": data}), strict=True))


@pytest.mark.parametrize(
    ("opset", "elem_type", "options"),
    [
        (17, TensorProto.FLOAT, {}),
        (18, TensorProto.FLOAT, {}),
        (17, TensorProto.FLOAT16, {}),
        (9, TensorProto.FLOAT, {"ir_version": 3, "list_initializers": True}),
    ],
)
def test_ranges_are_those_of_the_values(opset, elem_type, options):
    model = network(opset=opset, elem_type=elem_type, **options)
    data = images(5).astype(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    with load_model(model) as loaded:
        found = channel_ranges(io.read(model), read_samples({"x": data}, loaded.inputs))
    computed = values(model, [name for node in model.graph.node for name in node.output], data)
    assert found.keys() == computed.keys() | {"x"}
    for name, tensor in {**computed, "x": data}.items():
        rows = np.moveaxis(tensor.astype(np.float64), 1, 0).reshape(tensor.shape[1], -1)
        # runs of one sample sum in another order than one run of all: some roundings of the type
        tolerance = 1e-2 if elem_type == TensorProto.FLOAT16 else 1e-5
        expected = np.stack([rows.min(1), rows.max(1)])
        np.testing.assert_allclose(found[name], expected, rtol=tolerance, atol=tolerance)


def test_the_model_is_not_changed_and_progress_is_told():
    source, told = io.read(network()), []
    before = source.model.SerializeToString()
    with load_model(network()) as loaded:
        samples = read_samples({"x": images(3)}, loaded.inputs)
    channel_ranges(source, samples, threads=1, progress=told.append)
    assert source.model.SerializeToString() == before
    assert told == [1, 2, 3]
