"""Conditions that can be taken out of a running package, one at a time.

A condition is one side of an `or` in front of a refusal (`if a or b: return Refusal(..)`, or False,
or None, or an exception raised), one side of an `and` in what a predicate returns, or a rule of the
table.
On import of the modules every one is wrapped in a call of `judged`, which notes in which tests it
decides, or answers as if it were not there.

As a pytest plugin (`-p scripts.mutants`) it notes for every test what decides in it, and how long
the test takes, and writes both into the folder that ONNXFUSE_DECISIONS names.
"""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (
    "onnxfuse/affine",
    "onnxfuse/equalization",
    "onnxfuse/lift",
    "onnxfuse/rewrites",
)
FILES = ("onnxfuse/certify.py", "onnxfuse/copies.py", "onnxfuse/rounding.py")
FOLDER_VARIABLE = "ONNXFUSE_DECISIONS"
JUDGED = "__judged__"


@dataclass(frozen=True)
class Condition:
    """What can be taken out.

    Attributes:
        key: Where it is: "onnxfuse/lift/pooling.py:41:7", or "rule AveragePool".
        text: Its source, or empty.
        neutral: What it is when it does not decide.
    """

    key: str
    text: str
    neutral: bool


class _Decisions:
    """Which conditions have decided since the test began, and which one is taken out."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.taken_out = ""


DECISIONS = _Decisions()


def judged(key: str, neutral: bool, value: Any) -> Any:
    """The value of a condition, noted where it decides; what is neutral when it is taken out."""
    if bool(value) == neutral:
        return value
    DECISIONS.seen.add(key)
    return neutral if key == DECISIONS.taken_out else value


class _Wrapper(ast.NodeTransformer):
    """Wraps the conditions of one file."""

    def __init__(self, path: str) -> None:
        self.path, self.found = path, list[Condition]()
        self._is_predicate = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        outer, self._is_predicate = self._is_predicate, _is_predicate(node)
        self.generic_visit(node)
        self._is_predicate = outer
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        if _refuses(node.body[-1]):
            node.test = self._sides(node.test, ast.Or, neutral=False)
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        if (
            self._is_predicate
            and node.value is not None
            and not isinstance(node.value, ast.Constant)
        ):
            node.value = self._sides(node.value, ast.And, neutral=True)
        return node

    def _sides(self, test: ast.expr, operator: type[ast.boolop], neutral: bool) -> ast.expr:
        if isinstance(test, ast.BoolOp) and isinstance(test.op, operator):
            test.values = [self._wrapped(value, neutral) for value in test.values]
            return test
        return self._wrapped(test, neutral)

    def _wrapped(self, value: ast.expr, neutral: bool) -> ast.expr:
        condition = Condition(
            f"{self.path}:{value.lineno}:{value.col_offset}", ast.unparse(value), neutral
        )
        self.found.append(condition)
        call = ast.Call(
            ast.Name(JUDGED, ast.Load()),
            [ast.Constant(condition.key), ast.Constant(neutral), value],
            [],
        )
        return ast.copy_location(call, value)


def _refuses(last: ast.stmt) -> bool:
    """True for the end of a branch that refuses: a Refusal, False, None or an exception."""
    if isinstance(last, ast.Raise):
        return True
    if not isinstance(last, ast.Return):
        return False
    value = last.value
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id == "Refusal"
    return isinstance(value, ast.Constant) and (value.value is False or value.value is None)


def _is_predicate(node: ast.FunctionDef) -> bool:
    return isinstance(node.returns, ast.Name) and node.returns.id == "bool"


def wrapped(source: str, name: str) -> tuple[ast.Module, list[Condition]]:
    """A module whose conditions go through `JUDGED`, and the conditions; keys begin with `name`."""
    wrapper = _Wrapper(name)
    tree = wrapper.visit(ast.parse(source))
    return ast.fix_missing_locations(tree), wrapper.found


def _wrapped(path: Path) -> tuple[ast.Module, list[Condition]]:
    return wrapped(path.read_text(), path.relative_to(ROOT).as_posix())


def files() -> list[Path]:
    """The modules whose conditions can be taken out."""
    found = [ROOT / name for name in FILES]
    return sorted([*found, *(file for folder in FOLDERS for file in (ROOT / folder).glob("*.py"))])


def conditions() -> list[Condition]:
    """All that can be taken out, rules included."""
    from onnxfuse.lift.table import RULES

    found = [condition for path in files() for condition in _wrapped(path)[1]]
    return [*found, *(Condition(f"rule {name}", "", neutral=False) for name in RULES)]


class _Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> CodeType:
        return compile(_wrapped(Path(path))[0], path, "exec", dont_inherit=True)

    def get_code(self, fullname: str) -> CodeType:
        # never from a cached file, which would be the module as it is
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, JUDGED, judged)
        super().exec_module(module)
        if module.__name__ == "onnxfuse.lift.table":
            for name, rule in list(module.RULES.items()):
                module.RULES[name] = _Rule(name, rule)


@dataclass(frozen=True)
class _Rule:
    """A rule that can be taken out: it refuses then."""

    name: str
    rule: Callable[[Any], Any]

    def __call__(self, site: Any) -> Any:
        from onnxfuse.affine import Refusal

        if judged(f"rule {self.name}", False, True):
            return self.rule(site)
        return Refusal("it is taken out")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self.paths = {str(path) for path in files()}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith("onnxfuse."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.origin not in self.paths:
            return None
        spec.loader = _Loader(name, spec.origin)
        return spec


def install() -> None:
    """From now on the modules are imported with their conditions wrapped.

    Raises:
        RuntimeError: One of them is imported already.
    """
    early = [name for name in sys.modules if name.startswith("onnxfuse")]
    if early:
        raise RuntimeError(f"imported too early: {', '.join(early)}")
    sys.meta_path.insert(0, _Finder())


# The plugin -------------------------------------------------------------------------------------

_tests: dict[str, tuple[float, list[str]]] = {}


def pytest_configure(config: pytest.Config) -> None:
    """Wraps the conditions before a test module can import them, and makes runs repeatable."""
    from hypothesis import Phase, settings  # not before pytest has seen to it

    if FOLDER_VARIABLE in os.environ:
        install()
    phases = [Phase.explicit, Phase.generate]  # a smaller example tells no more
    settings.register_profile("mutation", derandomize=True, database=None, phases=phases)
    settings.load_profile("mutation")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    """Notes what decides in a test."""
    DECISIONS.seen.clear()
    start = time.perf_counter()
    result = yield
    _tests[item.nodeid] = (time.perf_counter() - start, sorted(DECISIONS.seen))
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Writes what was noted."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder and _tests:
        Path(folder, f"{os.getpid()}.json").write_text(json.dumps(_tests))
