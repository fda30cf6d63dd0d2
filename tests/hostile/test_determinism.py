"""The same model gives the same bytes, whatever the process, its hash seed and its threads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import models
from tests.hostile.seeds import SEEDS

MODEL = Path(models.__file__).with_name("three_branch.onnx")
ENVIRONMENTS = (
    {"PYTHONHASHSEED": "0"},
    {"PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "7", "OPENBLAS_NUM_THREADS": "4"},
    {"PYTHONHASHSEED": "random", "LC_ALL": "C", "TZ": "Asia/Tokyo"},
)


def digests(folder, files, **environment):
    command = [sys.executable, "-m", "tests.hostile.determinism_worker", str(folder / "page.html")]
    done = subprocess.run(
        [*command, *map(str, files)],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_bytes_are_the_same_in_every_process(tmp_path):
    files = [MODEL]
    for name, model in SEEDS.items():
        files.append(tmp_path / f"{name}.onnx")
        files[-1].write_bytes(model.SerializeToString())
    first, *others = (digests(tmp_path, files, **given) for given in ENVIRONMENTS)
    assert len(first) == len(files)
    for other in others:
        assert other == first


@pytest.mark.slow
def test_the_program_writes_the_same_files(tmp_path):
    written = set()
    for number, given in enumerate(ENVIRONMENTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        names = ("out.onnx", "report.json", "report.html")
        out, report, page = (str(folder / name) for name in names)
        command = [sys.executable, "-m", "onnxfuse", "optimize", str(MODEL), "-q", "-o", out]
        subprocess.run(
            [*command, "--json", report, "--report", page], env={**os.environ, **given}, check=True
        )
        written.add(tuple((folder / name).read_bytes() for name in names))
    assert len(written) == 1
