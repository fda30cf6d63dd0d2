"""Optimizes models and prints digests of everything that comes out, as JSON."""

import hashlib
import json
import sys
from pathlib import Path

import onnx

import onnxfuse


def digests(model):
    result = onnxfuse.optimize(model)
    page = Path(sys.argv[1])
    result.save_report(page, "model")
    results = {
        "model": result.model.SerializeToString(deterministic=True),
        "plain": result.model.SerializeToString(),
        "report": result.report.to_json().encode(),
        "page": page.read_bytes(),
    }
    return {name: hashlib.sha256(data).hexdigest() for name, data in results.items()}


if __name__ == "__main__":
    found = {}
    for path in sys.argv[2:]:
        found[path] = digests(path)
        assert digests(onnx.load(path)) == found[path], path
        assert digests(path) == found[path], path
    print(json.dumps(found))
