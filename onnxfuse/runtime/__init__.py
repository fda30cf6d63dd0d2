"""ONNX Runtime: execution providers, sessions, and what models are given to compute."""

from onnxfuse.runtime.feeds import Feeds, Kind, make_feeds
from onnxfuse.runtime.model import Input, Loaded, load_model
from onnxfuse.runtime.providers import AVAILABLE_HINT, provider_name, require_provider
from onnxfuse.runtime.session import RunError, Session, open_session
from onnxfuse.runtime.sizes import parse_shapes, parse_sizes, size_choices, sizes_of_shapes
from onnxfuse.runtime.testdata import Recorded, read_inputs, read_recorded, recorded_folders

__all__ = [
    "AVAILABLE_HINT",
    "Feeds",
    "Input",
    "Kind",
    "Loaded",
    "Recorded",
    "RunError",
    "Session",
    "load_model",
    "make_feeds",
    "open_session",
    "parse_shapes",
    "parse_sizes",
    "provider_name",
    "read_inputs",
    "read_recorded",
    "recorded_folders",
    "require_provider",
    "size_choices",
    "sizes_of_shapes",
]
