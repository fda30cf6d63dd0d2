"""Random tensors and indices for operators that move elements."""

import numpy as np
from hypothesis import strategies as st

DTYPES = st.sampled_from([np.float32, np.int64])


@st.composite
def tensors(draw, min_rank=1, max_rank=4, min_side=1, max_side=4):
    """A tensor of distinct elements, so that each tells where it came from."""
    shape = draw(st.lists(st.integers(min_side, max_side), min_size=min_rank, max_size=max_rank))
    return np.arange(1, 1 + np.prod(shape, dtype=int)).reshape(shape).astype(draw(DTYPES))


def axes_of(x):
    return st.integers(0, x.ndim - 1)


def int64(values):
    return np.array(values, np.int64)


def nd_indices(data, shape, leading, depth):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    columns = [rng.integers(-shape[i], shape[i], leading) for i in range(depth)]
    return np.stack(columns, -1) if columns else np.zeros((*leading, 0), np.int64)
