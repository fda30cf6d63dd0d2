"""A process that takes numbers of fuzzed cases from standard input and says how each went.

python -m tests.hostile.fuzz_worker FOLDER, then one number a line; it answers each with one line:
the number, a tab, and "ok", "refused" or what is wrong.
"""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

import onnx

import onnxfuse
from tests.hostile.fuzzing import spoil

MEMORY = 6 << 30


def outcome(number: int, folder: Path) -> str:
    """How the case of a number went."""
    path = spoil(number, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    target = folder / "out.onnx"
    try:
        result = onnxfuse.optimize(path)
        result.report.to_json()
        result.save(target)
        if number % 4 == 0:
            result.save_report(folder / "report.html")
    except onnxfuse.OnnxfuseError as error:
        left = {file.name: file.read_bytes() for file in folder.iterdir()}
        if left != before:
            return f"leaves {sorted(left.keys() - before.keys())}"
        if isinstance(error, onnxfuse.CertificateError):
            return f"CertificateError: {error}"
        return "refused" if "\n" not in str(error) else f"not one line: {str(error)!r}"
    except Exception as error:
        trace = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(f.filename).name}:{f.lineno}" for f in trace[-6:]]
        return f"{type(error).__name__}: {error} at {' '.join(places)}".replace("\n", " ")[:600]
    return "ok" if _valid(target) or not _valid(path) else f"invalid output: {_complaint(target)}"


def _complaint(path: Path) -> str:
    try:
        onnx.checker.check_model(path)
    except Exception as error:
        return " ".join(str(error).split())[:300]
    return ""


def _valid(path: Path) -> bool:
    return not _complaint(path)


def main() -> None:
    """Answers until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        folder = Path(tempfile.mkdtemp(dir=sys.argv[1]))
        said = outcome(int(line), folder)
        shutil.rmtree(folder)
        print(f"{int(line)}\t{said}", flush=True)


if __name__ == "__main__":
    main()
