"""What users may do with a network in training form before they deploy it, each in a process.

Each function takes the model and gives another one. `prepare` runs one of them on a file in a
process of its own, so that one that crashes or does not end is a line in a table.

python -m scripts.contestants NAME SOURCE TARGET
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx

NOT_INSTALLED = 3


def onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxsim, as its command line does it."""
    import onnxsim

    simplified, checked = onnxsim.simplify(model)
    if not checked:
        raise RuntimeError("onnxsim's own check failed")
    return simplified


def onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxslim, with its defaults."""
    import onnxslim

    return onnxslim.slim(model)


def onnxoptimizer(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxoptimizer: all passes that fuse and eliminate, which are its default."""
    import onnxoptimizer

    return onnxoptimizer.optimize(model)


def onnxscript_optimizer(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxscript's optimizer, with its defaults."""
    from onnxscript import optimizer

    return optimizer.optimize(model)


def onnxscript_rewriter(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxscript's rewriter, with its default rules."""
    from onnxscript import rewriter

    return rewriter.rewrite(model)


def runtime_offline(model: onnx.ModelProto) -> onnx.ModelProto:
    """What ONNX Runtime's own optimizer writes when all of it is on."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def onnxfuse(model: onnx.ModelProto) -> onnx.ModelProto:
    """This project."""
    import onnxfuse

    return onnxfuse.optimize(model).model


CONTESTANTS: Mapping[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "onnxsim": onnxsim,
    "onnxslim": onnxslim,
    "onnxoptimizer": onnxoptimizer,
    "onnxscript optimizer": onnxscript_optimizer,
    "onnxscript rewriter": onnxscript_rewriter,
    "ONNX Runtime offline": runtime_offline,
    "onnxfuse": onnxfuse,
}


def prepare(name: str, source: Path, target: Path, limit: float) -> str:
    """Runs a contestant on a file; gives why there is no result, or nothing.

    Args:
        name: A key of `CONTESTANTS`.
        source: The model in training form.
        target: Where to write the result.
        limit: Seconds after which it is stopped.
    """
    command = [sys.executable, "-m", "scripts.contestants", name, str(source), str(target)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"over {limit:g} s"
    if done.returncode == NOT_INSTALLED:
        return "not installed"
    if done.returncode or not target.is_file():
        lines = done.stderr.strip().splitlines()
        return f"failed: {lines[-1] if lines else f'exit code {done.returncode}'}"
    return ""


def main() -> None:
    """Reads, changes, writes, and sees whether ONNX Runtime takes what was written."""
    import onnxruntime as ort

    name, source, target = sys.argv[1:]
    try:
        made = CONTESTANTS[name](onnx.load(source))
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_INSTALLED)
    onnx.save(made, target)
    onnx.checker.check_model(target)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    ort.InferenceSession(target, options, ["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
