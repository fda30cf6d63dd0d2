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

CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "module",
    "params",
    "state_dict_ema",
    "model_ema",
    "params_ema",
    "ema",
)
"""Keys under which training scripts keep the state_dict, in the order of preference."""

_DEEPEST = 4


def load_checkpoint(module: Module, path: Path) -> None:
    """Loads a state_dict, of torch.save or in safetensors, into a module.

    A state_dict inside a mapping, under one of `CONTAINERS`, is found; what is no tensor beside it
    is left out. A prefix that a wrapper put in front of every key (DataParallel, torch.compile,
    Lightning) is dropped.

    Raises:
        ModelError: The file cannot be read or holds more than tensors, or a key is missing, unknown
            or of another shape or kind.
    """
    own = {key: value for key, value in module.state_dict().items() if _is_tensor(value)}
    state = _plain(path, _read(path), set(own))
    try:
        _check(path, state, own)
        shared = {key: own[key] for key in own if key not in state}
        module.load_state_dict({**shared, **state}, strict=False)
    except ModelError:
        raise
    except Exception as error:  # lazy parameters, tensors without storage and so on
        raise ModelError(f"{path}: cannot be loaded into the module: {said(error)}") from error


def _check(path: Path, state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    given = {own[key].data_ptr() for key in state if key in own}
    missing = [
        key
        for key, value in own.items()
        if key not in state
        and not key.endswith("num_batches_tracked")
        and not (value.numel() and value.data_ptr() in given)  # tied to one that is there
    ]
    if missing:
        raise ModelError(f"{path}: {_some('no', missing)} ({len(state)} keys in the file)")
    unknown = [key for key in state if key not in own]
    if unknown:
        raise ModelError(f"{path}: {_some('the module has no', unknown)}")
    for key, value in state.items():
        if value.is_meta or value.is_quantized or value.layout is not require().strided:
            raise ModelError(f"{path}: {key!r} is no dense tensor of plain numbers")
        if value.shape != own[key].shape:
            raise ModelError(
                f"{path}: {key!r} is {show_shape(value.shape)}, in the module "
                f"{show_shape(own[key].shape)}"
            )
        if _kind(value) != _kind(own[key]):
            raise ModelError(
                f"{path}: {key!r} is of {value.dtype}, in the module of {own[key].dtype}"
            )


def _some(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{what} {keys[0]!r}{more}"


def _kind(tensor: Any) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


def _is_tensor(value: Any) -> bool:
    return isinstance(value, require().Tensor)


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
        if "unsupported global" in str(error).lower():
            raise ModelError(
                f"{path}: holds more than tensors, which is not unpickled; save it with "
                "torch.save(module.state_dict(), path)"
            ) from error
        raise ModelError(f"{path}: not a checkpoint: {said(error)}") from error


def _plain(path: Path, loaded: Any, own: set[str]) -> dict[str, Any]:
    """The state_dict in what was loaded, under plain keys."""
    state = loaded
    for _ in range(_DEEPEST):
        if not isinstance(state, Mapping) or own & state.keys() or _has_tensors(state):
            break
        state = next((state[k] for k in CONTAINERS if isinstance(state.get(k), Mapping)), None)
    if not isinstance(state, Mapping) or not _has_tensors(state):
        raise ModelError(f"{path}: holds no state_dict, a mapping of names to tensors")
    plain = {key: v for key, v in state.items() if isinstance(key, str) and _is_tensor(v)}
    while not own & plain.keys():
        prefix = next(iter(plain)).partition(".")[0] + "."
        if not all(key.startswith(prefix) for key in plain):
            break
        plain = {key.removeprefix(prefix): value for key, value in plain.items()}
    return plain


def _has_tensors(state: Mapping[Any, Any]) -> bool:
    """True when tensors stand in the mapping itself."""
    return any(isinstance(key, str) and _is_tensor(value) for key, value in state.items())
