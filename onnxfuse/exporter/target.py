"""The module that TARGET on the command line names."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from onnxfuse.errors import ModelError
from onnxfuse.exporter.pytorch import require, said

if TYPE_CHECKING:
    from torch.nn import Module


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE each; a value is a Python literal, or else a string.

    Raises:
        ModelError: One is written otherwise, or a key is given twice.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ModelError(f"argument {text!r} is not written as KEY=VALUE")
        if key in arguments:
            raise ModelError(f"argument {key!r} is given twice")
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            arguments[key] = value
    return arguments


def target_file(target: str) -> Path | None:
    """The file that a target names; of a package, where it is loaded, the one it came from."""
    where = target.rpartition(":")[0] or target
    if where.endswith((".py", ".pt2")):
        return Path(where)
    file = getattr(sys.modules.get(where), "__file__", None)
    return None if file is None else Path(file)


def load_module(target: str, arguments: Mapping[str, Any], seed: int) -> Module:
    """The module that a factory makes; its code runs.

    Args:
        target: package.module:factory or path/file.py:factory. The factory is anything callable, or
            a module itself when there are no arguments. Packages are looked for in the working
            directory too.
        arguments: Keyword arguments of the factory.
        seed: Seed of torch's generator, for the import and for the factory; it is put back.

    Raises:
        ModelError: There is no such file, package or factory, it raises, or it makes no module.
    """
    torch = require()
    where, name = _split(target, "package.module:factory, path/file.py:factory, file.pt2")
    with searching(target), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        factory = _found(target, where, name)
        is_module = isinstance(factory, torch.nn.Module)
        if is_module and arguments:
            raise ModelError(f"{target} is a module already: it takes no arguments")
        if not callable(factory):
            raise ModelError(f"{target} is a {type(factory).__name__}, not a factory of modules")
        try:
            torch.manual_seed(seed)
            made: Any = factory if is_module else factory(**arguments)
        except (Exception, SystemExit) as error:  # code of the user's, as above
            raise ModelError(f"{target} failed: {said(error)}") from error
    if not isinstance(made, torch.nn.Module):
        raise ModelError(f"{target} made a {type(made).__name__}, not a torch.nn.Module")
    module: Module = made
    return module


def named_object(target: str) -> Any:
    """What package.module:name or path/file.py:name stands for; the module's code runs.

    Raises:
        ModelError: It is written otherwise, or there is no such file, package or name.
    """
    where, name = _split(target, "package.module:name, path/file.py:name")
    with searching(target):
        return _found(target, where, name)


def _split(target: str, forms: str) -> tuple[str, str]:
    """Where a target is, and its name there."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise ModelError(f"target {target!r} is none of {forms}")
    return where, name


def _found(target: str, where: str, name: str) -> Any:
    found: Any = _imported(target, where)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except Exception as error:  # code of the user's, which may raise anything
            raise ModelError(f"{target}: there is no {part!r} in {where}") from error
    return found


def _imported(target: str, where: str) -> ModuleType:
    """The Python module of a file, or of a dotted name."""
    path = Path(where)
    if path.suffix == ".py" and not path.is_file():
        raise ModelError(f"{target}: there is no file {where}")
    try:
        return _run_file(path) if path.suffix == ".py" else importlib.import_module(where)
    except (Exception, SystemExit) as error:  # code of the user's, as above
        raise ModelError(f"{target}: {where} cannot be imported: {said(error)}") from error


def _run_file(path: Path) -> ModuleType:
    name = f"_onnxfuse_target_{path.stem}"  # under its own name it could hide a package
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@contextmanager
def searching(target: str) -> Iterator[None]:
    """What Python gives a script: its folder, or the working directory, in sys.path, and argv."""
    where = target.rpartition(":")[0] or target
    path, arguments = list(sys.path), list(sys.argv)
    folders = [str(Path.cwd())]
    if where.endswith(".py"):
        folders.insert(0, str(Path(where).parent.absolute()))
    sys.path[:0] = folders
    sys.argv[:] = [where]
    try:
        yield
    finally:
        sys.path[:], sys.argv[:] = path, arguments
