"""What the command line asks to export: a module or program, its weights and its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError
from onnxfuse.exporter.archive import load_program
from onnxfuse.exporter.checkpoint import load_checkpoint
from onnxfuse.exporter.inputs import example, parse_input
from onnxfuse.exporter.target import load_module, parse_arguments


@dataclass(frozen=True)
class Loaded:
    """What is to be exported.

    Attributes:
        module: A torch.nn.Module or a torch.export.ExportedProgram.
        args: Example inputs; none for a program, which brings its own.
        input_names: Names that the user gave the inputs, or None.
    """

    module: Any
    args: tuple[Any, ...]
    input_names: list[str] | None


def load(
    target: str,
    arguments: Sequence[str],
    checkpoint: Path | None,
    inputs: Sequence[str],
    seed: int,
) -> Loaded:
    """Loads what a target names.

    Args:
        target: package.module:factory, path/file.py:factory or file.pt2.
        arguments: KEY=VALUE for the factory.
        checkpoint: A file with the module's weights, or None.
        inputs: [NAME=]SHAPE[:DTYPE] for each input.
        seed: Seed of what the factory draws, and of the inputs.

    Raises:
        ModelError: Something is written wrongly, cannot be loaded, or does not go together.
    """
    specs = [parse_input(text) for text in inputs]
    options = parse_arguments(arguments)
    names = [spec.name for spec in specs if spec.name is not None]
    if names and len(names) < len(specs):
        raise ModelError("name all of the inputs or none")
    if target.endswith(".pt2"):
        if options or specs or checkpoint is not None:
            raise ModelError(
                f"{target} brings its weights and inputs: no --arg, --checkpoint or --input"
            )
        return Loaded(load_program(Path(target)), (), None)
    if not specs:
        raise ModelError("what does the module take? Give --input, such as --input 1x3x224x224")
    module = load_module(target, options, seed)
    if checkpoint is not None:
        load_checkpoint(module, checkpoint)
    return Loaded(module, example(specs, seed), names or None)
