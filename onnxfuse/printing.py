"""Text from models and files, as it may go to a terminal or a log."""


def printable(text: str) -> str:
    """The text, with nothing in it that steers a terminal: such characters are written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
