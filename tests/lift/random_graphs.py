"""Random models out of every operator that lifts, as hypothesis strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import assume
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.lift import random_dressing as dressing
from tests.lift.comparing import feeds_for
from tests.lift.random_functions import move_into_function
from tests.lift.random_images import Image
from tests.lift.random_matrices import Matrix
from tests.lift.random_settings import Setting, settings_of_every_kind


@dataclass(frozen=True)
class Model:
    """A model, and what it can be run with.

    Attributes:
        proto: The model.
        plain: The same with a name for each dimension that is not known.
        sizes: The extents that these have where all branches are sure to meet.
        setting: Opset and element type.
        overridable: Initializers that are inputs too.
    """

    proto: onnx.ModelProto
    plain: onnx.ModelProto
    sizes: dict[str, int]
    setting: Setting
    overridable: tuple[str, ...] = ()

    def feeds(self, change: int = 0, flag: bool = True) -> dict[str, np.ndarray]:
        """Random inputs, at sizes that are larger by `change`."""
        sizes = {name: size + change for name, size in self.sizes.items()}
        feeds = feeds_for(self.plain, sizes, seed=change + 1)
        return {**feeds, "flag": np.asarray(flag)} if "flag" in feeds else feeds

    def overrides(self) -> dict[str, np.ndarray]:
        """Other values for the initializers that are inputs, of the same signs."""
        weights = {t.name: numpy_helper.to_array(t) for t in self.proto.graph.initializer}
        return {n: np.asarray(weights[n] * 1.25, weights[n].dtype) for n in self.overridable}


def _is_valid(model: onnx.ModelProto) -> bool:
    """False where onnx, with the sizes that it infers, sees a contradiction."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.shape_inference.InferenceError:
        return False
    return True


@st.composite
def models(draw: Callable, most: int = 12) -> Model:
    """A model of at most `most` steps; a step is one operator, or a few that belong together."""
    setting = draw(settings_of_every_kind())
    image = draw(st.integers(0, 4)) > 0
    rank = draw(st.sampled_from([1, 2, 2, 2, 3])) if image else draw(st.integers(0, 2))
    grower = (Image if image else Matrix)(draw, rank, setting)
    for _ in range(draw(st.integers(1, most))):
        grower.step()
    assume(grower.b.nodes)
    plain, sizes = grower.model()
    assume(not grower.is_miscounted or _is_valid(plain))
    proto = onnx.ModelProto()
    proto.CopyFrom(plain)
    if draw(st.integers(0, 2)) == 0:
        for _ in range(draw(st.integers(1, 2))):
            move_into_function(draw, proto)
    overridable: tuple[str, ...] = ()
    if setting.opset < 9 and not proto.functions and draw(st.booleans()):
        dressing.list_initializers(proto)
    elif draw(st.integers(0, 2)) == 0:
        overridable = dressing.make_overridable(draw, proto, setting.elem_type)
    dressing.change_declarations(draw, proto)
    return Model(proto, plain, sizes, setting, overridable)
