"""Programs of torch.export: read without unpickling what they bring along."""

import contextlib
import io
import json
import pickle
import warnings
import zipfile

import pytest
import torch

from onnxfuse import ModelError
from onnxfuse.exporter.archive import load_program
from tests.exporter.modules import Block


@pytest.fixture(scope="module")
def archive():
    """Name and content of each part of a program."""
    buffer = io.BytesIO()
    program = torch.export.export(Block().eval(), (torch.randn(2, 4, 6, 6),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as parts:
        return {name: parts.read(name) for name in parts.namelist()}


def write(path, parts):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def test_loads_a_program(tmp_path, archive):
    program = load_program(write(tmp_path / "m.pt2", archive))
    assert isinstance(program, torch.export.ExportedProgram)
    assert program.example_inputs[0][0].shape == (2, 4, 6, 6)


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def trapped(parts, place, path):
    """The archive with a trap in a place where torch.export.load would unpickle it."""
    root = next(iter(parts)).partition("/")[0]
    buffer = io.BytesIO()
    torch.save((Trap(path),), buffer)
    parts = dict(parts)
    if place == "examples":
        parts[f"{root}/data/sample_inputs/model.pt"] = buffer.getvalue()
    elif place == "weight":
        name = f"{root}/data/weights/model_weights_config.json"
        config = json.loads(parts[name])
        config["config"]["wide.weight"]["use_pickle"] = True
        parts[name] = json.dumps(config)
        parts[f"{root}/data/weights/weight_0"] = buffer.getvalue()
    elif place == "legacy weights":
        parts[f"{root}/data/weights/model.pt"] = buffer.getvalue()
    elif place == "opaque constant":
        parts[f"{root}/data/constants/opaque_obj_0"] = pickle.dumps(Trap(path))
    elif place == "compiled code":
        parts[f"{root}/data/aotinductor/model/model.so"] = b"\x7fELF"
    return parts


@pytest.mark.parametrize(
    "place", ["examples", "weight", "legacy weights", "opaque constant", "compiled code"]
)
def test_nothing_but_tensors_is_unpickled(tmp_path, archive, place):
    path = write(tmp_path / "m.pt2", trapped(archive, place, tmp_path / "sprung"))
    with pytest.raises(ModelError, match=r"m\.pt2: "):
        load_program(path)
    assert not (tmp_path / "sprung").exists()


def test_refuses_other_files(tmp_path, archive):
    whole = write(tmp_path / "m.pt2", archive).read_bytes()
    (tmp_path / "other.zip").write_bytes(b"")
    contents = {
        "cannot be read": None,
        "not a program of torch.export.save": b"text",
        "not a program": whole[: len(whole) // 2],
    }
    for said, content in contents.items():
        path = tmp_path / "bad.pt2"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError, match=said):
            load_program(path)


def test_refuses_an_archive_without_its_graph(tmp_path, archive):
    parts = {name: content for name, content in archive.items() if "model.json" not in name}
    with pytest.raises(ModelError, match=r"torch\.export\.load failed") as caught:
        load_program(write(tmp_path / "m.pt2", parts))
    assert "\n" not in str(caught.value)


def graph_of(archive):
    (name,) = [name for name in archive if name.endswith("model.json")]
    return name, json.loads(archive[name])


@pytest.fixture(scope="module")
def dynamic():
    """The parts of a program with a symbolic batch."""
    buffer = io.BytesIO()
    shapes = ({0: torch.export.Dim("batch", min=2, max=64)},)
    program = torch.export.export(Block().eval(), (torch.randn(2, 4, 6, 6),), dynamic_shapes=shapes)
    torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as parts:
        return {name: parts.read(name) for name in parts.namelist()}


def test_loads_symbolic_sizes(tmp_path, dynamic):
    program = load_program(write(tmp_path / "m.pt2", dynamic))
    assert len(program.range_constraints) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s0', integer=True) + 0*len(str(open({path!r}, 'w')))",
        "sqrt.__globals__['__builtins__']['open']({path!r}, 'w')",
        "Symbol(open({path!r}, 'w'))",
        "Max(open, 1)({path!r}, 'w')",
        "Symbol('s0', **open({path!r}, 'w'))",
        "[s0 for s0 in (open({path!r}, 'w'),)][0]",
        "9**9**9**9",
    ],
)
def test_sizes_are_arithmetic_alone(tmp_path, dynamic, text):
    name, graph = graph_of(dynamic)
    plain = json.dumps(graph)
    (old,) = {v for v in plain.split('"expr_str": "')[1:2] for v in [v.split('"')[0]]}
    new = json.dumps(text.format(path=str(tmp_path / "sprung")))[1:-1]
    path = write(tmp_path / "m.pt2", {**dynamic, name: plain.replace(old, new).encode()})
    with pytest.raises(ModelError, match="a size is no arithmetic"):
        load_program(path)
    assert not (tmp_path / "sprung").exists()


def test_guards_are_not_executed(tmp_path, dynamic):
    name, graph = graph_of(dynamic)
    graph["guards_code"] = [f"open({str(tmp_path / 'sprung')!r}, 'w')"]
    path = write(tmp_path / "m.pt2", {**dynamic, name: json.dumps(graph).encode()})
    load_program(path).module()
    assert not (tmp_path / "sprung").exists()


def test_torch_reads_what_was_checked(tmp_path, archive):
    """Two archives in one file: Python reads the last, torch's reader may read the first."""
    good, evil = tmp_path / "good.pt2", tmp_path / "evil.pt2"
    write(good, archive)
    write(evil, trapped(archive, "examples", tmp_path / "sprung"))
    both = tmp_path / "both.pt2"
    both.write_bytes(evil.read_bytes() + good.read_bytes())
    with contextlib.suppress(ModelError):
        load_program(both)
    assert not (tmp_path / "sprung").exists()


def test_refuses_a_damaged_weight(tmp_path, archive):
    data = bytearray(write(tmp_path / "m.pt2", archive).read_bytes())
    (weight,) = [content for name, content in archive.items() if name.endswith("weight_0")]
    data[data.index(weight) + 40] ^= 0x40
    (tmp_path / "m.pt2").write_bytes(bytes(data))
    with pytest.raises(ModelError, match="CRC"):
        load_program(tmp_path / "m.pt2")


@pytest.mark.parametrize("config", [b"[]", b"null", b'{"config": []}', b'{"config": {"a": []}}'])
def test_refuses_odd_settings(tmp_path, archive, config):
    name = next(name for name in archive if name.endswith("weights_config.json"))
    with pytest.raises(ModelError, match="not a program"):
        load_program(write(tmp_path / "m.pt2", {**archive, name: config}))
