"""Latency is measured in few rounds."""

import pytest

from onnxfuse.quantization import comparing


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(comparing, "ROUNDS", 20)
