"""Two models that are run side by side: what is which in them, on what, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from onnxfuse.errors import ModelError
from onnxfuse.parity.cases import Case, find_cases
from onnxfuse.parity.evaluator import random_operator
from onnxfuse.parity.interface import Interface, match
from onnxfuse.runtime import Loaded, RunError, Session
from onnxfuse.runtime.providers import short_name

Progress: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Setting:
    """Two models and how they are run.

    Attributes:
        first: The model that is right.
        second: The model in question.
        interface: Which input and output of the one is which of the other.
        opened: Opens a session of a model on a provider.
        providers: ONNX Runtime's names of the providers.
        tell: Is told each step as it begins.
    """

    first: Loaded
    second: Loaded
    interface: Interface
    opened: Callable[..., Session]
    providers: Sequence[str]
    tell: Progress

    @staticmethod
    def of(
        first: Loaded,
        second: Loaded,
        opened: Callable[..., Session],
        providers: Sequence[str],
        tell: Progress,
    ) -> Setting:
        """The setting of two models.

        Raises:
            ModelError: They cannot be compared.
        """
        for loaded in (first, second):
            operator = random_operator(loaded.source.model)
            if operator is not None:
                raise ModelError(f"{loaded.name}: {operator} gives other numbers at every run")
        return Setting(first, second, match(first, second), opened, providers, tell)

    def cases(self, sizes: Mapping[str, int], recorded: Path | None, seed: int) -> list[Case]:
        """What the two are compared on; see `find_cases`.

        Raises:
            ModelError: The second model has fixed another size, or the first runs on none.
        """
        for name, fixed in self.interface.sizes.items():
            if sizes.get(name, fixed) != fixed:
                raise ModelError(
                    f"size {name}={sizes[name]}: the second model has fixed it at {fixed}"
                )
        self.tell("looking for inputs")
        session = self.opened(self.first, self.providers[0])
        return find_cases(self.first, session, {**self.interface.sizes, **sizes}, recorded, seed)

    def runs(
        self, provider: str, cases: Sequence[Case], notes: list[str]
    ) -> Iterator[tuple[int, list[Any], list[Any] | RunError]]:
        """Outputs of both models in the first's order, or why the second has none.

        Args:
            provider: Where.
            cases: On what.
            notes: Gets a line for each case that the first model does not run on.

        Yields:
            The number of the case, and what the models make of it.
        """
        ours, theirs = (self.opened(loaded, provider) for loaded in (self.first, self.second))
        names = [name for name, _ in self.interface.outputs]
        wanted = [name for _, name in self.interface.outputs]
        for number, case in enumerate(cases):
            self.tell(f"{short_name(provider)}, {case.label}")
            try:
                left = ours.run(case.feeds, names)
            except RunError as error:
                notes.append(f"left out on {short_name(provider)}, {case.label}: {error}")
                continue
            try:
                right = theirs.run(self.interface.renamed(case.feeds), wanted)
            except RunError as error:
                yield number, left, error
            else:
                yield number, left, right
