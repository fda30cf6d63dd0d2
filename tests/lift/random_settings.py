"""What random models are made in: opset, element type, and how weights are shared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx
from hypothesis import strategies as st
from onnx import TensorProto

from tests.lift.building import Builder

OPSETS = tuple(range(7, onnx.defs.onnx_opset_version() + 1))
_FIRST_OPSET = {TensorProto.BFLOAT16: 22}  # of Conv
WITHOUT_KERNELS = (TensorProto.BFLOAT16, TensorProto.DOUBLE)
"""Element types that ONNX Runtime lacks some operators in."""
NEWEST_WITH_KERNELS = 24
_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Setting:
    """Opset and element type of a model.

    Attributes:
        opset: Of the default domain.
        elem_type: Of its tensors, as in TensorProto.
        everything: Whether it has bodies, quantized layers and shared weights.
    """

    opset: int = 17
    elem_type: int = TensorProto.FLOAT
    everything: bool = False

    @property
    def has_kernels(self) -> bool:
        """Whether ONNX Runtime runs every operator."""
        return self.elem_type not in WITHOUT_KERNELS and self.opset <= NEWEST_WITH_KERNELS

    @property
    def quantizes(self) -> bool:
        """Whether its element type can be quantized: in float32, and in float16 from opset 19."""
        narrow = self.elem_type == TensorProto.FLOAT16 and self.opset >= 19
        return self.opset >= 10 and (self.elem_type == TensorProto.FLOAT or narrow)


@st.composite
def settings_of_every_kind(draw: Callable) -> Setting:
    kinds = [TensorProto.FLOAT] * 3
    kinds += [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE]
    kind = draw(st.sampled_from(kinds))
    opset = draw(st.sampled_from([o for o in OPSETS if o >= _FIRST_OPSET.get(kind, 0)]))
    return Setting(opset, kind, everything=True)


class SharingBuilder(Builder):
    """A builder that takes a weight that is there already now and then."""

    def __init__(self, setting: Setting, seed: int) -> None:
        super().__init__(setting.opset, setting.elem_type, seed)
        self.enclosing: list[list[TensorProto]] = []
        self._shares = 0.2 if setting.everything else 0.0
        self._shrink = 0.6 if setting.elem_type in _NARROW else 1.0

    def random(self, *shape: int, name: str = "", low: float = 0.3, high: float = 1.2) -> str:
        if self._shares and self.rng.random() < self._shares:
            scopes = [*self.enclosing, self.initializers]
            alike = [
                tensor.name
                for scope in scopes
                for tensor in scope
                if tuple(tensor.dims) == shape and tensor.data_type == self.elem_type
            ]
            if alike:
                return str(self.rng.choice(alike))
        return super().random(*shape, name=name, low=low, high=high * self._shrink)

    def unused(self, role: str) -> str:
        """A name for a tensor."""
        return self._name(role)
