from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from onnxfuse.report.html.layout import place


@st.composite
def graphs(draw):
    count = draw(st.integers(1, 24))
    sizes = draw(
        st.lists(
            st.tuples(st.integers(20, 200), st.integers(15, 90)), min_size=count, max_size=count
        )
    )
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(
        lambda pair: pair[0] < pair[1]
    )
    return sizes, draw(st.lists(pairs, unique=True, max_size=60)) if count > 1 else []


def corners(placement, sizes):
    return [(x, y, x + w, y + h) for (x, y), (w, h) in zip(placement.corners, sizes, strict=True)]


@given(graphs())
def test_no_two_boxes_overlap(graph):
    sizes, edges = graph
    boxes = corners(place(sizes, edges), sizes)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        for u0, v0, u1, v1 in boxes[:number]:
            assert x1 < u0 or u1 < x0 or y1 < v0 or v1 < y0


@given(graphs())
def test_everything_is_inside_the_drawing(graph):
    sizes, edges = graph
    placement = place(sizes, edges)
    points = [point for route in placement.routes for point in route]
    for x0, y0, x1, y1 in corners(placement, sizes):
        points += [(x0, y0), (x1, y1)]
    for x, y in points:
        assert -1e-6 <= x <= placement.width + 1e-6
        assert -1e-6 <= y <= placement.height + 1e-6


@given(graphs())
def test_edges_go_down_from_box_to_box(graph):
    sizes, edges = graph
    placement = place(sizes, edges)
    boxes = corners(placement, sizes)
    for (start, end), route in zip(edges, placement.routes, strict=True):
        assert all(upper[1] <= lower[1] + 1e-6 for upper, lower in pairwise(route))
        (x, y), (u, v) = route[0], route[-1]
        assert abs(x - (boxes[start][0] + boxes[start][2]) / 2) < 1e-6
        assert abs(y - boxes[start][3]) < 1e-6
        assert abs(u - (boxes[end][0] + boxes[end][2]) / 2) < 1e-6
        assert abs(v - boxes[end][1]) < 1e-6


@given(graphs())
def test_edges_pass_beside_the_boxes(graph):
    sizes, edges = graph
    placement = place(sizes, edges)
    boxes = corners(placement, sizes)
    for edge, route in zip(edges, placement.routes, strict=True):
        for (x, y), (u, v) in pairwise(route):
            for number, (x0, y0, x1, y1) in enumerate(boxes):
                if number not in edge and max(x, u) > x0 + 1e-6 and min(x, u) < x1 - 1e-6:
                    assert v <= y0 + 1e-6 or y >= y1 - 1e-6


def test_a_chain_is_straight():
    placement = place([(40, 20), (90, 30), (60, 20)], [(0, 1), (1, 2)])
    assert {round(x, 6) for route in placement.routes for x, _ in route} == {45.0}


def test_nothing():
    assert place([], []).corners == ()


def test_a_long_chain_with_a_bypass_takes_no_long():
    count = 400
    edges = [(i, i + 1) for i in range(count - 1)] + [(0, i) for i in range(2, count, 40)]
    placement = place([(60, 20)] * count, edges)
    assert len({y for _, y in placement.corners}) == count
