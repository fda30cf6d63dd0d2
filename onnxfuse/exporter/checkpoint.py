"""Checkpoints: tensors from a file into a module; nothing else is ever unpickled."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse.errors import ModelError
from onnxfuse.exporter.inputs import show_shape
from onnxfuse.exporter.pytorch import require, said

if TYPE_CHECKING:
    from torch.nn import Module

CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "module")
"""Keys under which training scripts keep the state_dict, in the order of preference."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put in front of every key."""


def load_checkpoint(module: Module, path: Path) -> None:
    """Loads a state_dict, of torch.save or in safetensors, into a module.

    A state_dict inside a mapping, under one of `CONTAINERS`, is found; prefixes that a wrapper put
    in front of every key are dropped.

    Raises:
        ModelError: The file cannot be read or holds more than tensors, or a key is missing, unknown
            or of another shape.
    """
    state = _unwrapped(path, _read(path))
    own = module.state_dict()
    optional = {key for key in own if key.endswith("num_batches_tracked")}
    missing = [key for key in own if key not in state and key not in optional]
    if missing:
        raise ModelError(f"{path}: {_some('no', missing)} ({len(state)} keys in the file)")
    unknown = [key for key in state if key not in own]
    if unknown:
        raise ModelError(f"{path}: {_some('the module has no', unknown)}")
    for key, value in state.items():
        if value.shape != own[key].shape:
            raise ModelError(
                f"{path}: {key!r} is {show_shape(value.shape)}, in the module "
                f"{show_shape(own[key].shape)}"
            )
    module.load_state_dict({**{key: own[key] for key in optional}, **state})


def _some(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{what} {keys[0]!r}{more}"


def _read(path: Path) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if data[8:9] == b"{":  # eight bytes of a length, then JSON
        safetensors = require("safetensors.torch")
        try:
            return safetensors.load(data)
        except Exception as error:  # the library has an exception type of its own
            raise ModelError(f"{path}: not a safetensors file: {said(error)}") from error
    torch = require()
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything on files that are not its own
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise ModelError(
                f"{path}: holds more than tensors, which is not unpickled; save it with "
                "torch.save(module.state_dict(), path)"
            ) from error
        raise ModelError(f"{path}: not a checkpoint: {said(error)}") from error


def _unwrapped(path: Path, loaded: Any) -> dict[str, Any]:
    """The state_dict in what was loaded, under plain keys."""
    torch = require()
    state = loaded
    while isinstance(state, Mapping) and not _is_state(state, torch):
        inner = next((state[k] for k in CONTAINERS if isinstance(state.get(k), Mapping)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, Mapping) or not _is_state(state, torch):
        raise ModelError(f"{path}: holds no state_dict, a mapping of names to tensors")
    plain = dict(state)
    for prefix in WRAPPERS:
        if all(key.startswith(prefix) for key in plain):
            plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain


def _is_state(state: Mapping[Any, Any], torch: Any) -> bool:
    return bool(state) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    )
