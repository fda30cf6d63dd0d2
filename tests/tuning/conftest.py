"""No test reads or writes the user's cache."""

import pytest


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Where measured ratios are kept meanwhile."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ONNXFUSE_CACHE", str(folder))
    return folder
