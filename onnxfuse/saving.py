"""What commands give: a model to be written, and a report on it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod

from onnxfuse import io


class Saved(ABC):
    """A result with a model and a report.

    Attributes:
        source: The model, and where it keeps its weights.
    """

    source: io.Source

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model; the file appears whole or not at all.

        Raises:
            ModelError: If it cannot be written there, or the path is the input file.
        """
        io.write(self.source, path)

    def save_report(self, path: str | os.PathLike[str], name: str = "model") -> None:
        """Writes the report as a page of HTML: one file, which loads nothing from anywhere.

        Args:
            path: Where to.
            name: What the page calls the model.

        Raises:
            ModelError: If it cannot be written there, or the path is an input file.
        """
        io.write_text(self.page(name), path, *self.source.files)

    @abstractmethod
    def page(self, name: str = "model") -> str:
        """The report as a page of HTML."""
