"""How weights are cut into blocks."""

import numpy as np
import pytest

from onnxfuse.compression.layout import conv_layout, even, matrix_layout, transposed_layout


def test_blocks_are_as_equal_as_they_can_be():
    assert [even(n, 32) for n in (1, 31, 32, 33, 40, 48, 64, 65, 96)] == [
        *(1, 31, 32, 17, 20, 24, 32, 22, 32)
    ]
    for values in range(1, 300):
        for block in (16, 32, 64):
            size = even(values, block)
            assert size <= block
            assert -(-values // size) == -(-values // block)


@pytest.mark.parametrize(
    ("layout", "stored", "axis", "size", "channels"),
    [
        (conv_layout((8, 64, 3, 3), 32), (8, 64, 3, 3), 1, 32, 0),
        (conv_layout((8, 40, 3), 32), (8, 40, 3), 1, 20, 0),
        (conv_layout((8, 3, 7, 7), 32), (8, 147), 1, 30, 0),
        (conv_layout((8, 1, 3, 3, 3), 32), (8, 27), 1, 27, 0),
        (conv_layout((8, 20, 1, 1), 32), (8, 20, 1, 1), 1, 20, 0),
        (transposed_layout((64, 8, 2, 2), 32, 1), (64, 8, 2, 2), 0, 32, 1),
        (transposed_layout((128, 8, 2, 2), 32, 2), (128, 8, 2, 2), 0, 32, None),
        (transposed_layout((134, 8, 2, 2), 32, 2), (134, 32), 1, 32, None),
        (transposed_layout((16, 8, 2, 2), 32, 1), (16, 32), 1, 32, None),
        (transposed_layout((16, 8, 1, 1), 32, 1), (16, 8, 1, 1), 1, 8, 1),
        (matrix_layout((100, 7), 32, 0), (100, 7), 0, 25, 1),
        (matrix_layout((7, 100), 32, 1), (7, 100), 1, 25, 0),
        (matrix_layout((5, 100, 7), 64, 1), (5, 100, 7), 1, 50, 2),
    ],
)
def test_layouts(layout, stored, axis, size, channels):
    assert (layout.stored, layout.axis, layout.size) == (stored, axis, size)
    assert layout.channels == channels


@pytest.mark.parametrize(
    "layout", [conv_layout((4, 6, 3, 2), 2), matrix_layout((5, 6), 4, 0), conv_layout((4, 2, 3), 8)]
)
def test_rows_go_back_to_their_place(layout):
    weight = np.arange(np.prod(layout.shape)).reshape(layout.shape)
    rows = layout.rows(weight)
    assert rows.shape[1] == layout.stored[layout.axis]
    assert np.array_equal(layout.placed(rows).reshape(layout.shape), weight)
    scales = np.arange(np.prod(layout.scale_shape)).reshape(layout.scale_shape)
    assert np.array_equal(layout.placed(layout.rows_of_blocks(scales)), scales)
    assert np.array_equal(
        rows[1],
        np.moveaxis(weight.reshape(layout.stored), layout.axis, -1).reshape(-1, rows.shape[1])[1],
    )
