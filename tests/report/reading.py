"""Reading a page as a browser would, and complaining where a browser would guess."""

from html.parser import HTMLParser

VOID = {"meta", "br", "col"}
UNSAFE = {
    "script",
    "iframe",
    "object",
    "embed",
    "link",
    "img",
    "base",
    "form",
    "image",
    "foreignobject",
}


class Node:
    def __init__(self, name, attributes, above=None):
        self.name, self.attributes, self.above = name, attributes, above
        self.children = []

    @property
    def text(self):
        return "".join(c if isinstance(c, str) else c.text for c in self.children)

    def all(self, name=None, class_=None):
        """Every element below, by its name and one of its classes."""
        for child in self.children:
            if isinstance(child, Node):
                classes = (child.attributes.get("class") or "").split()
                if name in (None, child.name) and class_ in (None, *classes):
                    yield child
                yield from child.all(name, class_)

    def one(self, name=None, class_=None):
        (node,) = self.all(name, class_)
        return node

    def rows(self):
        """The cells' texts of each row of a table."""
        cells = ("th", "td")
        return [[c.text for c in row.children if c.name in cells] for row in self.all("tr")]


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.root = self.at = Node("", {})

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        node = Node(tag, dict(attrs), self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_startendtag(self, tag, attrs):
        raise AssertionError(f"<{tag}/>")

    def handle_endtag(self, tag):
        assert tag == self.at.name, (tag, self.at.name)
        self.at = self.at.above

    def handle_data(self, data):
        self.at.children.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")


def read(page):
    """The page as a tree; fails where elements overlap, or where anything in it is active."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.at is reader.root, reader.at.name
    keys = [n.attributes["id"] for n in reader.root.all() if "id" in n.attributes]
    assert len(set(keys)) == len(keys)
    for node in reader.root.all():
        assert node.name not in UNSAFE, node.name
        for name, value in node.attributes.items():
            assert not name.startswith("on"), (node.name, name)
            assert name not in ("style", "src", "srcset", "action", "xlink:href"), (node.name, name)
            if name == "href":
                assert value.startswith("#"), value
                assert value[1:] in keys, value
    return reader.root


def figures(page):
    """The numbers of the summary, by label."""
    (held,) = page.all("dl", "figures")
    return {d.one("dt").text: [v.text for v in d.all("dd")] for d in held.all("div")}


def facts(node):
    """Names and values of every list of facts below a node."""
    held = {}
    for listed in node.all("dl", "facts"):
        held.update({d.one("dt").text: d.one("dd").text for d in listed.all("div")})
    return held
