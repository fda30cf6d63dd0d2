"""Files that are no models, or wish to do harm: one line, exit code 2, and nothing left behind."""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxfuse
from tests.handmade import BOOL, INT64, integers, value
from tests.io.building import build, conv, external, point_to

GOOD = conv().SerializeToString()
COMMANDS = {
    "optimize": ["optimize", "bad.onnx", "-o", "out.onnx", "--json", "out.json"],
    "inspect": ["inspect", "bad.onnx", "--report", "out.html"],
    "check": ["check", "bad.onnx", "--json", "out.json"],
    "check against": ["check", "good.onnx", "bad.onnx"],
    "bench": ["bench", "bad.onnx", "--json", "out.json"],
}


# A small process in between: what is forked from a large one counts that as its own memory.
MEASURED = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(process.pid, 0)
with open(sys.argv[1], "w") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(folder, *arguments, limit=None, stdout=subprocess.PIPE):
    """Exit code, stdout, stderr and peak memory in MB of the program."""

    def limited():
        for kind, most in (limit or {}).items():
            resource.setrlimit(kind, (most, most))

    program = [sys.executable, "-m", "onnxfuse", *map(str, arguments)]
    with tempfile.NamedTemporaryFile() as memory:
        done = subprocess.run(
            [sys.executable, "-S", "-c", MEASURED, memory.name, *program],
            cwd=folder,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limited,
        )
        peak = int(Path(memory.name).read_text())
    return done.returncode, done.stdout or "", done.stderr, peak >> 10


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(folder, arguments, words, **options):
    before = contents(folder)
    code, out, said, memory = run(folder, *arguments, **options)
    assert (code, out) == (2, ""), said
    assert said.startswith("onnxfuse: ")
    assert said.endswith("\n")
    assert said[:-1].isprintable()
    assert words in said
    assert contents(folder) == before
    assert memory < 600


def changed(change):
    model = conv()
    change(model)
    return model.SerializeToString()


def set_opset(version):
    return lambda model: setattr(model.opset_import[0], "version", version)


def add_cycle(model):
    model.graph.node.append(helper.make_node("Add", ["y", "back"], ["there"]))
    model.graph.node.append(helper.make_node("Relu", ["there"], ["back"]))


def call_itself(model):
    called = helper.make_node("Own", ["a"], ["b"], domain="own")
    imports = [helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "Own", ["a"], ["b"], [called], imports))


def call_exponentially(model):
    imports = [helper.make_opsetid("own", 1), helper.make_opsetid("", 17)]
    model.opset_import.append(imports[0])
    for i in range(30):
        inner = {"op_type": f"F{i - 1}", "domain": "own"} if i else {"op_type": "Relu"}
        nodes = [helper.make_node(inputs=[a], outputs=[b], **inner) for a, b in ("ac", "cb")]
        model.functions.append(helper.make_function("own", f"F{i}", ["a"], ["b"], nodes, imports))
    model.graph.node[0].output[0] = "z"
    model.graph.node.append(helper.make_node("F29", ["z"], ["y"], domain="own"))


def nested(depth):
    """Bodies within bodies, put together as bytes: no object can be made so deep."""

    def field(number, data):
        length, size = bytearray(), len(data)
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        return bytes([number << 3 | 2]) + bytes([*length, size]) + data

    graph = b""
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, field(4, b"If") + field(5, attribute))
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


BAD = {
    "empty": (b"", "empty"),
    "text": (b"some words\n", "not an ONNX model"),
    "opset 0": (changed(set_opset(0)), "imports no version"),
    "negative opset": (changed(set_opset(-1)), "version -1"),
    "opset 2^62": (changed(set_opset(2**62)), f"opset {2**62}"),
    "opset -2^63": (changed(set_opset(-(2**63))), f"version -{2**63}"),
    "opset 999": (changed(set_opset(999)), "opset 999"),
    "no opset": (changed(lambda m: m.ClearField("opset_import")), "no opset_import"),
    "cycle": (changed(add_cycle), "cycle"),
    "dangling": (changed(lambda m: m.graph.node[0].input.append("no")), "'no', which nothing"),
    "two inputs": (changed(lambda m: m.graph.input.append(m.graph.input[0])), "two inputs"),
    "made twice": (changed(lambda m: m.graph.node.append(m.graph.node[0])), "made twice"),
    "calls itself": (changed(call_itself), "calls itself"),
    "calls 2^30": (changed(call_exponentially), "stand for"),
    "name": (GOOD.replace(b"net", b"\xff\xfe\xfd").replace(b"conv", b"\xffonv"), "UTF-8"),
    "200 bodies": (nested(200), "not an ONNX model"),
    "20000 bodies": (nested(20_000), "not an ONNX model"),
    "dims": (changed(lambda m: m.graph.initializer[0].dims.append(-1)), "dims"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("content", "words"), BAD.values(), ids=BAD)
def test_bad_files_are_told_by_optimize(tmp_path, content, words):
    (tmp_path / "bad.onnx").write_bytes(content)
    refused(tmp_path, COMMANDS["optimize"], words)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "optimize"])
@pytest.mark.parametrize("name", ["empty", "opset 2^62", "cycle", "calls itself", "200 bodies"])
def test_bad_files_are_told_by_every_command(tmp_path, command, name):
    (tmp_path / "good.onnx").write_bytes(GOOD)
    (tmp_path / "bad.onnx").write_bytes(BAD[name][0])
    refused(tmp_path, COMMANDS[command], "bad.onnx")


def test_a_file_cut_anywhere_is_refused_or_optimized(tmp_path):
    path = tmp_path / "bad.onnx"
    for length in range(0, len(GOOD), 3):
        path.write_bytes(GOOD[:length])
        with pytest.raises(onnxfuse.ModelError):
            onnxfuse.optimize(path)


def test_a_device_is_not_read(tmp_path):
    arguments = ["optimize", "/dev/zero", "-o", "out.onnx"]
    refused(tmp_path, arguments, "/dev/zero: a device", limit={resource.RLIMIT_AS: 4 << 30})


# External data -----------------------------------------------------------------------------------

ENTRIES = {
    "missing": ({"location": "gone.bin"}, "cannot be read"),
    "parent": ({"location": "../secret"}, "outside the model's folder"),
    "absolute": ({"location": "/etc/passwd"}, "not a relative path"),
    "link": ({"location": "link"}, "outside the model's folder"),
    "hard link": ({"location": "hard"}, "hard link"),
    "device": ({"location": "/dev/zero"}, "not a relative path"),
    "fifo": ({"location": "fifo"}, "not a plain file"),
    "folder": ({"location": "."}, "not a plain file"),
    "offset past the end": ({"offset": 10**9}, "the file has"),
    "negative offset": ({"offset": -1}, "the file has"),
    "huge offset": ({"offset": 10**30}, "the file has"),
    "huge length": ({"length": 2**63}, "the file has"),
    "negative length": ({"length": -4}, "the file has"),
    "no number": ({"length": "1e3"}, "cannot be read"),
    "endless number": ({"offset": "9" * 10_000}, "cannot be read"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("entries", "words"), ENTRIES.values(), ids=ENTRIES)
def test_external_data_stays_in_the_models_folder(tmp_path, entries, words):
    folder = tmp_path / "model"
    path = external(conv(), folder, name="bad")
    (tmp_path / "secret").write_bytes(bytes(10_000))
    (folder / "link").symlink_to("../secret")
    (folder / "hard").hardlink_to(tmp_path / "secret")
    os.mkfifo(folder / "fifo")
    point_to(path, **entries)
    refused(folder, COMMANDS["optimize"], words)


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "optimize"])
def test_no_command_reads_data_from_elsewhere(tmp_path, command):
    folder = tmp_path / "model"
    path = external(conv(), folder, name="bad")
    (folder / "good.onnx").write_bytes(GOOD)
    (tmp_path / "secret").write_bytes(bytes(10_000))
    point_to(path, location="../secret", offset=0)
    refused(folder, COMMANDS[command], "bad.onnx")


# Places to write to ------------------------------------------------------------------------------

TARGETS = {
    "input": ("good.onnx", "input file"),
    "link to the input": ("same.onnx", "input file"),
    "folder": ("sub", "is a folder"),
    "missing folder": ("no/out.onnx", "there is no folder"),
    "device": ("/dev/full", "no plain file"),
    "below a file": ("good.onnx/out.onnx", "there is no folder"),
    "no name": ("", "is a folder"),
}


@pytest.mark.parametrize(("target", "words"), TARGETS.values(), ids=TARGETS)
def test_targets_that_cannot_be(tmp_path, target, words):
    (tmp_path / "good.onnx").write_bytes(GOOD)
    (tmp_path / "same.onnx").symlink_to("good.onnx")
    (tmp_path / "sub").mkdir()
    refused(tmp_path, ["optimize", "good.onnx", "-o", target], words)


@pytest.mark.parametrize("old", [None, b"an older result"])
def test_a_file_that_grows_too_large_is_told(tmp_path, old):
    (tmp_path / "good.onnx").write_bytes(GOOD)
    if old is not None:
        (tmp_path / "out.onnx").write_bytes(old)
    arguments = ["optimize", "good.onnx", "-o", "out.onnx"]
    refused(tmp_path, arguments, "File too large", limit={resource.RLIMIT_FSIZE: 1000})


def test_a_full_standard_output_is_told(tmp_path):
    (tmp_path / "good.onnx").write_bytes(GOOD)
    with open("/dev/full", "w") as full:
        code, _, said, _ = run(tmp_path, "inspect", "good.onnx", "--json", "-", stdout=full)
    assert (code, said) == (2, "onnxfuse: cannot print: No space left on device\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "good.onnx").write_bytes(GOOD)
    (tmp_path / "sub").mkdir(mode=0o500)
    refused(tmp_path, ["optimize", "good.onnx", "-o", "sub/out.onnx"], "denied")


# Bombs -------------------------------------------------------------------------------------------


def bomb(op_type, *inputs, chained=True):
    """An operator that makes 10^12 elements of a few, and a chain behind it."""
    weights = [
        integers("huge", 10**6, 10**6),
        integers("wide", 1, 1, 10**6, 10**6),
        numpy_helper.from_array(np.array(10**12), "trillion"),
        numpy_helper.from_array(np.array(0), "zero"),
        numpy_helper.from_array(np.array(1), "one"),
        numpy_helper.from_array(np.ones((1, 1), np.float32), "grid"),
        integers("pads", 0, 0, 10**6, 10**6),
        numpy_helper.from_array(np.ones((8, 8, 1, 1), np.float32), "w"),
        numpy_helper.from_array(np.ones((10**6, 1), np.float32), "column"),
        numpy_helper.from_array(np.ones((1, 10**6), np.float32), "row"),
    ]
    nodes = [helper.make_node(op_type, inputs, ["b0"])]
    nodes.append(helper.make_node("Cast", ["b0"], ["b1"], to=TensorProto.FLOAT))
    if chained:
        nodes += [helper.make_node("Add", [f"b{i}", f"b{i}"], [f"b{i + 1}"]) for i in range(1, 9)]
    last = nodes[-1].output[0]
    nodes.append(helper.make_node("Conv", ["x", "w"], ["a"]))
    nodes.append(helper.make_node("ReduceMax", [last], ["k"], keepdims=0))
    nodes.append(helper.make_node("Add", ["a", "k"], ["s"]))
    nodes.append(helper.make_node("Conv", ["s", "w"], ["y"]))
    return build(nodes, weights=weights)


BOMBS = {
    "ConstantOfShape": ("ConstantOfShape", "huge"),
    "Expand": ("Expand", "grid", "huge"),
    "Tile": ("Tile", "grid", "huge"),
    "Range": ("Range", "zero", "trillion", "one"),
    "Pad": ("Pad", "grid", "pads"),
    "MatMul": ("MatMul", "column", "row"),
    "Add": ("Add", "column", "row"),
    "Shape of x": ("Expand", "x", "wide"),
}


@pytest.mark.slow
@pytest.mark.parametrize("inputs", BOMBS.values(), ids=BOMBS)
def test_constants_of_terabytes_are_not_made(tmp_path, inputs):
    (tmp_path / "bomb.onnx").write_bytes(bomb(*inputs).SerializeToString())
    code, _, said, memory = run(tmp_path, "optimize", "bomb.onnx", "-o", "out.onnx", "-q")
    assert (code, said) == (0, "")
    assert inputs[0] in {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert memory < 1200


def doubling(times):
    """A Concat of a tensor with itself, again and again."""
    start = numpy_helper.from_array(np.ones((1, 8, 1, 1), np.float32), "c0")
    nodes = [
        helper.make_node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=0) for i in range(times)
    ]
    nodes.append(helper.make_node("ReduceMax", [f"c{times}"], ["k"], keepdims=0))
    nodes.append(helper.make_node("Add", ["x", "k"], ["y"]))
    return build(nodes, weights=[start])


@pytest.mark.slow
def test_a_chain_that_doubles_is_not_followed(tmp_path):
    (tmp_path / "bomb.onnx").write_bytes(doubling(60).SerializeToString())
    code, _, said, memory = run(tmp_path, "optimize", "bomb.onnx", "-o", "out.onnx", "-q")
    assert (code, said) == (0, "")
    assert memory < 1200


# Large graphs ------------------------------------------------------------------------------------


def chain(count, op_type, *others):
    nodes = [helper.make_node(op_type, [f"t{i}", *others], [f"t{i + 1}"]) for i in range(count)]
    two = numpy_helper.from_array(np.full(8, 2, np.float32), "k")
    ends = [value(n, ("N", 8)) for n in ("t0", f"t{count}")]
    return build(nodes, ends[:1], ends[1:], [two])


def optimizes(folder, model, most):
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    del model
    code, _, said, memory = run(folder, "optimize", "net.onnx", "-o", "out.onnx", "-q")
    assert (code, said) == (0, "")
    assert memory < most


@pytest.mark.slow
def test_long_chains_of_sums_are_no_deep_recursion(tmp_path):
    optimizes(tmp_path, chain(5000, "Add", "k"), 400)
    optimizes(tmp_path, chain(5000, "Add", "t0"), 400)


@pytest.mark.nightly
@pytest.mark.parametrize(("op_type", "others"), [("Relu", ()), ("Identity", ()), ("Add", ("k",))])
def test_a_million_nodes(tmp_path, op_type, others):
    optimizes(tmp_path, chain(1_000_000, op_type, *others), 6000)


def test_a_model_object_nested_too_deep_is_told():
    model = build([helper.make_node("Relu", ["x"], ["y"])])
    kind = model.graph.input[0].type
    for _ in range(2000):
        kind = kind.sequence_type.elem_type
    kind.tensor_type.elem_type = INT64
    with pytest.raises(onnxfuse.ModelError, match="nested deeper"):
        onnxfuse.optimize(model)


def test_bodies_as_deep_as_a_file_can_hold_are_optimized():
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["o"])], "b", [], [value("o")])
    for depth in range(30):
        node = helper.make_node("If", ["c"], [f"o{depth}"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "b", [], [value(f"o{depth}")])
        del graph.node[0].attribute[1].g.node[:]
        graph.node[0].attribute[1].g.node.append(helper.make_node("Neg", ["x"], [f"e{depth}"]))
        graph.node[0].attribute[1].g.output[0].name = f"e{depth}"
    graph.input.extend([value("x", (2,)), value("c", (), BOOL)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert onnxfuse.optimize(model).model.graph.node[0].op_type == "If"
