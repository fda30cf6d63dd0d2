"""Weights beside the model, from one end to the other: memory, files, numbers."""

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

GB = 10**9
LAYERS = {"small": [256] * 60, "large": [2048, *[1024] * 78]}
ROUNDING = 2.0**-24


def convs_with_norms(folder, channels):
    """Convs, each with a BatchNormalization and a Relu, their weights in one file; its size."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(1 << 22).astype(np.float32)
    nodes, tensors, offset, x = [], [], 0, "x"
    with (folder / "weights").open("wb") as file:

        def outside(name, *dims, low=0.0):
            nonlocal offset
            count = int(np.prod(dims))
            begin = int(rng.integers(1000))
            values = np.resize(noise[begin:], count)
            values = low + np.abs(values) if low else values / np.sqrt(count / dims[0])
            file.write(values.astype(np.float32).tobytes())
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
            tensor.data_location = TensorProto.EXTERNAL
            where = {"location": "weights", "offset": offset, "length": 4 * count}
            for key, entry in where.items():
                tensor.external_data.add(key=key, value=str(entry))
            tensors.append(tensor)
            offset += 4 * count
            return name

        for index, (inputs, outputs) in enumerate(
            zip([channels[0], *channels], channels, strict=False)
        ):
            weight = outside(f"w{index}", outputs, inputs, 3, 3)
            norm = [outside(f"{role}{index}", outputs, low=0.5) for role in "gbmv"]
            nodes += [
                helper.make_node("Conv", [x, weight], [f"c{index}"], pads=[1] * 4),
                helper.make_node("BatchNormalization", [f"c{index}", *norm], [f"n{index}"]),
                helper.make_node("Relu", [f"n{index}"], [f"r{index}"]),
            ]
            x = f"r{index}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", count, "h", "w"])
        for name, count in (("x", channels[0]), (x, channels[-1]))
    ]
    graph = helper.make_graph(nodes, "layers", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "in.onnx")
    return offset


def peak_of(arguments):
    """The most memory that a run of the program holds at a time, in bytes."""
    process = subprocess.Popen([sys.executable, "-m", "onnxfuse", *map(str, arguments)])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * 1024


def output_of(path, channels):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((1, channels, 3, 3)).astype(np.float32)
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(
    "size",
    [
        pytest.param("small", marks=pytest.mark.slow),
        pytest.param("large", marks=pytest.mark.nightly),
    ],
)
def test_weights_beside_the_model_stay_there_in_three_times_their_size(size, tmp_path):
    channels = LAYERS[size]
    total = convs_with_norms(tmp_path, channels)
    assert total > (3 * GB if size == "large" else 0.1 * GB)
    interpreter = peak_of(["--version"])
    target = tmp_path / "out" / "out.onnx"
    target.parent.mkdir()
    peak = peak_of(["optimize", tmp_path / "in.onnx", "-o", target, "--quiet"])
    assert peak - interpreter < 3 * total
    assert sorted(file.name for file in target.parent.iterdir()) == ["out.onnx", "out.onnx.data"]
    onnx.checker.check_model(target)
    model = onnx.load(target, load_external_data=False)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == ["Conv", "Relu"] * len(channels)
    expected = output_of(tmp_path / "in.onnx", channels[0])
    actual = output_of(target, channels[0])
    # each layer rounds its weights once more and sums in another order
    allowed = 8 * ROUNDING * len(channels)
    assert np.linalg.norm(actual - expected) < allowed * np.linalg.norm(expected)
