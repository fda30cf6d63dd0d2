import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxfuse.report.html.condense import LARGEST, condensed
from onnxfuse.report.html.diagram import Box, Diagram, draw
from tests.report.reading import read


def diagram(operators, edges):
    """Source, nodes, target; numbers in edges count from the source."""
    nodes = [Box("node", operator) for operator in operators]
    return Diagram((Box("tensor", "x"), *nodes, Box("tensor", "y")), tuple(edges))


def chain(*operators):
    return diagram(operators, [(i, i + 1) for i in range(len(operators) + 1)])


def titles(d):
    return [box.title for box in d.boxes]


def test_small_graphs_stay():
    small = chain(*["Conv"] * LARGEST)
    assert condensed(small) is small


def test_a_row_becomes_one_box_with_runs():
    one = condensed(chain("Pad", *["ScatterND"] * 50, "Conv"))
    assert titles(one) == ["x", "Pad", "y"]
    assert one.boxes[1].lines == ("> ScatterND ×50 > Conv",)
    assert one.edges == ((0, 1), (1, 2))


def test_rows_side_by_side_become_one_box():
    branches = 50
    edges = []
    for branch in range(branches):
        first = 1 + 2 * branch
        edges += [(0, first), (first, first + 1), (first + 1, 2 * branches + 1)]
    edges.append((2 * branches + 1, 2 * branches + 2))
    one = condensed(diagram(["Slice", "Conv"] * branches + ["Concat"], edges))
    assert titles(one) == ["x", "50 × (Slice > Conv)", "Concat", "y"]
    assert one.edges == ((0, 1), (1, 2), (2, 3))


def test_it_stops_as_soon_as_it_is_small_enough():
    edges = [(0, 1), (0, 2), (1, 3), (2, 3), *((i, i + 1) for i in range(3, 48))]
    made = condensed(diagram(["Conv", "Pool", *["Relu"] * 45], edges))
    assert titles(made)[:4] == ["x", "Conv", "Pool", "Relu ×45"]


def test_what_cannot_be_merged_is_counted():
    count = 2 * (LARGEST + 1)
    edges = [(0, 1), (count, count + 1)]
    edges += [(i, j) for i in range(1, count) for j in (i + 1, i + 2) if j <= count]
    made = condensed(diagram(["Add", "Mul"] * (count // 2), edges))
    assert titles(made) == ["x", f"{count} groups", "y"]
    assert made.boxes[1].tip == f"Add ×{count // 2}, Mul ×{count // 2}"


@given(st.data(), st.integers(1, 12))
def test_what_is_left_is_a_small_graph_in_order(data, largest):
    count = data.draw(st.integers(1, 60))
    operators = data.draw(st.lists(st.sampled_from("AB"), min_size=count, max_size=count))
    edges = {(i, count + 1) for i in range(1, count + 1)}
    for node in range(1, count + 1):
        edges |= {
            (above, node) for above in data.draw(st.sets(st.integers(0, node - 1), max_size=2))
        }
    made = condensed(diagram(operators, sorted(edges)), largest)
    assert sum(box.kind == "node" for box in made.boxes) <= largest
    assert titles(made)[0] == "x"
    assert titles(made)[-1] == "y"
    assert all(start < end for start, end in made.edges)
    read(draw(made, "t", "d"))


def test_rows_of_thousands_take_no_long():
    assert titles(condensed(chain(*["Conv", "Add"] * 5_000)))[0] == "x"


@pytest.mark.parametrize("name", ["n" * 500, "<b>", "大" * 90, "\udcff"])
def test_text_is_cut_to_its_box(name):
    d = Diagram((Box("tensor", name), Box("node", name, (name, name), name)), ((0, 1),))
    page = read(draw(d, "t", "d"))
    for box in page.all("g"):
        room = float(box.one("rect").attributes["width"])
        assert room < 200
        assert all(len(text.text) < 60 for text in box.all("text"))
