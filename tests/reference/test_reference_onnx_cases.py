"""ONNX's own backend test data: node cases (newest opset) and models that PyTorch computed."""

import warnings
from functools import cache
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from onnxfuse.reference import OLDEST_OPSET, SUPPORTED, UnsupportedOperator, evaluate

# Cases that evaluate must refuse: (part of the case's name, $ at its end, part of the reason).
REFUSED = [
    ("batchnorm_example_training_mode", "training mode"),
    ("batchnorm_epsilon_training_mode", "training mode"),
    ("training_dropout", "training mode"),
    ("with_argmax", "outputs"),
    ("resize_tf_crop", "mode 'linear'"),
    *[(f"s_{mode}", f"mode '{mode}'") for mode in ("linear", "cubic")],
    ("nearest_axes", "axes"),
    ("nearest_floor_align_corners", "align_corners"),
    *[(f"nearest_not_{way}er", f"'not_{way}er'") for way in ("small", "larg")],
    ("resize_upsample_sizes_nearest$", "whole factors"),
    ("resize_downsample_scales_nearest", "whole factors"),
    ("resize_downsample_sizes_nearest", "whole factors"),
    # quantizing rounds to few bits, which the identity would hide
    *[
        (f"to_{kind}", "Cast to ")
        for kind in ("FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2")
    ],
    *[(f"{kind}_to", "Cast from ") for kind in ("INT4", "INT2")],
    *[(f"_quantizelinear_{kind}", "codes of type") for kind in ("e4m3fn", "e5m2", "float4e2m1")],
]

# Cases with numbers halfway between two codes, where float32 rounds to the other one.
HALFWAY = {"test_dynamicquantizelinear"}


@cache
def node_cases():
    """The cases of one supported operator each, by operator type."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # building the cases overflows on purpose
        cases = load_model_tests(kind="node")
    by_operator = {op_type: [] for op_type in SUPPORTED}
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in SUPPORTED and not nodes[0].domain:
            by_operator[nodes[0].op_type].append(case)
    return by_operator


def as_array(value):
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def check(case_name, model, opset, inputs, outputs, rtol, atol):
    """Compares with the tolerance that the case states, or the rounding of its narrow type."""
    reasons = [reason for part, reason in REFUSED if part in f"{case_name}$"]
    if reasons:
        with pytest.raises(UnsupportedOperator, match=reasons[0]):
            evaluate(model.graph.node, inputs, opset)
        return
    actual = evaluate(model.graph.node, inputs, opset)
    for output, expected in zip(model.graph.output, outputs, strict=True):
        value = actual[output.name]
        assert value.shape == expected.shape, case_name
        if value.dtype == np.float64:
            precision = float(ml_dtypes.finfo(expected.dtype).eps)
            expected = expected.astype(np.float64)
            np.testing.assert_allclose(
                value, expected, max(rtol, precision), atol, err_msg=case_name
            )
        elif case_name in HALFWAY:
            assert value.dtype == expected.dtype
            assert np.abs(value.astype(int) - expected.astype(int)).max() <= 1
        else:
            np.testing.assert_array_equal(value, expected, case_name, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("op_type", sorted(SUPPORTED))
def test_node_cases(op_type):
    cases = node_cases()[op_type]
    assert cases
    for case in cases:
        names = [value.name for value in case.model.graph.input]
        for arrays, expected in case.data_sets:
            if any(isinstance(array, list) or array is None for array in arrays):
                continue  # Identity of sequences and optionals
            inputs = dict(zip(names, map(as_array, arrays), strict=True))
            outputs = [as_array(array) for array in expected]
            opset = max(case.model.opset_import[0].version, OLDEST_OPSET)
            check(case.name, case.model, opset, inputs, outputs, case.rtol, case.atol)


def read_all(folder, kind):
    count = len(list(folder.glob(f"{kind}_*.pb")))
    return [
        numpy_helper.to_array(onnx.load_tensor(folder / f"{kind}_{i}.pb")) for i in range(count)
    ]


@pytest.mark.parametrize("kind", ["pytorch-converted", "pytorch-operator"])
def test_models_that_pytorch_computed(kind):
    # opset 6; what broadcasts in these models does so alike by the rules of opset 7, but for slopes
    checked, known = 0, SUPPORTED - {"PRelu"}
    for case in load_model_tests(kind=kind):
        model = onnx.load(Path(case.model_dir) / "model.onnx")
        if not {node.op_type for node in model.graph.node} <= known:
            continue
        for folder in Path(case.model_dir).glob("test_data_set_*"):
            weights = {w.name: numpy_helper.to_array(w) for w in model.graph.initializer}
            names = [value.name for value in model.graph.input if value.name not in weights]
            inputs = weights | dict(zip(names, read_all(folder, "input"), strict=True))
            outputs = read_all(folder, "output")
            check(case.name, model, 7, inputs, outputs, case.rtol, case.atol)
            checked += 1
    assert checked >= 20
