"""A model loaded by ONNX Runtime on one provider."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from onnxfuse.errors import ModelError, OnnxfuseError
from onnxfuse.runtime.providers import short_name

Optimization = Literal["off", "basic", "extended", "layout", "all"]
OPTIMIZATIONS: tuple[Optimization, ...] = get_args(Optimization)
_LEVELS = {
    "off": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}


class RunError(OnnxfuseError):
    """ONNX Runtime cannot run a model on what it was given."""


class Openable(Protocol):
    """What a session is made of: a `Loaded`, or anything else with these two."""

    @property
    def path(self) -> Path:
        """The model's file."""

    @property
    def name(self) -> str:
        """What messages call the model."""


@dataclass(frozen=True)
class Session:
    """A session of ONNX Runtime.

    Attributes:
        raw: The `onnxruntime.InferenceSession`.
        name: What messages call the model.
        provider: ONNX Runtime's name of the provider.
        seconds: What it took to create the session.
    """

    raw: Any
    name: str
    provider: str
    seconds: float

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        """The outputs, in order: arrays; lists and dicts where the model gives such.

        Raises:
            RunError: ONNX Runtime cannot run the model on these inputs.
        """
        try:
            return list(self.raw.run(outputs, dict(feeds)))
        except Exception as error:  # the runtime raises types of its own, C++ ones
            raise RunError(f"{self.name}: {said(error)}") from error


def open_session(
    loaded: Openable,
    provider: str,
    *,
    optimization: Optimization = "all",
    threads: int | None = None,
    tf32: bool = False,
    profile_prefix: Path | None = None,
    stop_spinning: bool = False,
    config: Mapping[str, str] | None = None,
) -> Session:
    """Creates a session.

    Args:
        loaded: The model.
        provider: ONNX Runtime's name of a provider that is available.
        optimization: How far the runtime's own optimizer goes.
        threads: Threads within an operator; None for the runtime's choice.
        tf32: On CUDA, whether products in float32 may be computed in TF32.
        profile_prefix: Where to write the runtime's profile, if one is wanted.
        stop_spinning: Whether the session's threads go to sleep as soon as a run is over, rather
            than keep a core busy for a while in case another one follows.
        config: Entries of the session's configuration, as "session.disable_quant_qdq" and "1".

    Raises:
        ModelError: ONNX Runtime cannot load the model, or not on this provider, or takes no such
            entry.
    """
    import onnxruntime as ort  # takes a while

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[optimization])
    options.log_severity_level = 4
    if threads is not None:
        options.intra_op_num_threads = threads
    if stop_spinning:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    for key, value in (config or {}).items():
        try:
            options.add_session_config_entry(key, value)
        except Exception as error:  # the runtime raises types of its own, C++ ones
            raise ModelError(f"session configuration {key}={value}: {said(error)}") from error
    if profile_prefix is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile_prefix)
    chosen: list[Any] = [(provider, _provider_options(provider, tf32))]
    if provider != "CPUExecutionProvider":
        chosen.append("CPUExecutionProvider")  # for operators that it has no kernels for
    start = time.perf_counter()
    try:
        raw = ort.InferenceSession(str(loaded.path), options, providers=chosen)
    except Exception as error:  # the runtime raises types of its own, C++ ones
        raise ModelError(f"{loaded.name}: ONNX Runtime cannot load it: {said(error)}") from error
    seconds = time.perf_counter() - start
    if provider not in raw.get_providers():  # the runtime falls back without a word
        raise ModelError(
            f"provider {short_name(provider)!r} is in this build of ONNX Runtime, but could not "
            "be started: its libraries or its device are missing"
        )
    return Session(raw, loaded.name, provider, seconds)


def _provider_options(provider: str, tf32: bool) -> dict[str, str]:
    if provider == "CUDAExecutionProvider":
        return {"use_tf32": str(int(tf32))}
    return {}


def said(error: Exception) -> str:
    """What ONNX Runtime says of an error, in one line."""
    text = " ".join(str(error).split())
    return text.removeprefix("[ONNXRuntimeError] : ")


def is_string(value: Any) -> bool:
    """True for an array of strings."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "OUS"
