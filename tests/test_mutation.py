"""The tools that take conditions out, and look for a test that misses them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from onnxfuse.lift import RULES
from scripts import mutants, mutation

SOURCE = """
def rule(a, b):
    if a > 3 or b is None:
        return Refusal("too large, or missing")
    if a == 0:
        b = 5
    return b

def found(a):
    if a in (1, 2):
        return None
    if a == 3:
        return 0
    return a

def fits(a, b) -> bool:
    return a > 0 and b > 0

def checked(a):
    if a < 0:
        raise ValueError("below zero")
    return a
"""


def module() -> tuple[dict[str, Any], dict[str, mutants.Condition]]:
    tree, found = mutants.wrapped(SOURCE, "tiny.py")
    names: dict[str, Any] = {mutants.JUDGED: mutants.judged, "Refusal": str}
    exec(compile(tree, "tiny.py", "exec"), names)
    return names, {condition.text: condition for condition in found}


def test_finds_what_refuses_and_nothing_else():
    _, found = module()
    assert list(found) == ["a > 3", "b is None", "a in (1, 2)", "a > 0", "b > 0", "a < 0"]
    assert [text for text, condition in found.items() if condition.neutral] == ["a > 0", "b > 0"]
    assert found["b is None"].key == "tiny.py:3:16"


@pytest.mark.parametrize(
    ("text", "function", "given", "with_it", "without"),
    [
        ("a > 3", "rule", (4, 6), "too large, or missing", 6),
        ("b is None", "rule", (2, None), "too large, or missing", None),
        ("a in (1, 2)", "found", (2,), None, 2),
        ("a > 0", "fits", (-1, 1), False, True),
        ("b > 0", "fits", (1, -1), False, True),
        ("a < 0", "checked", (-3,), ValueError, -3),
    ],
)
def test_a_condition_taken_out_changes_the_result(
    monkeypatch, text, function, given, with_it, without
):
    names, found = module()
    monkeypatch.setattr(mutants.DECISIONS, "seen", set())
    if with_it is ValueError:
        with pytest.raises(ValueError, match="below zero"):
            names[function](*given)
    else:
        assert names[function](*given) == with_it
    assert mutants.DECISIONS.seen == {found[text].key}
    monkeypatch.setattr(mutants.DECISIONS, "taken_out", found[text].key)
    assert names[function](*given) == without


def test_finds_the_conditions_of_every_file_and_every_rule():
    found = mutants.conditions()
    assert max(Counter(condition.key for condition in found).values()) == 1
    assert {c.key for c in found if not c.text} == {f"rule {name}" for name in RULES}
    by_file = Counter(c.key.partition(":")[0] for c in found if c.text)
    assert 100 < by_file.total() < 700
    for name in ("affine/compose.py", "affine/window.py", "lift/movement.py", "lift/site.py"):
        assert by_file[f"onnxfuse/{name}"] > 3


def test_tries_the_tests_that_tell_most_first():
    condition = mutants.Condition("here", "a", neutral=False)
    noted = {
        "slow": (3.0, ["here"]),
        "of much": (1.0, ["here", "there", "elsewhere"] * 2),
        "quick": (0.1, ["here"]),
        "of something else": (0.1, ["there"]),
    }
    (trial,) = mutation.trials([condition], noted)
    assert trial.tests == ("quick", "slow", "of much")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "tests", "code", "said"),
    [
        ("Neg", "test_rules.py", 0, "1 of 1 conditions and rules are missed by a test"),
        pytest.param(
            *("Neg", "test_passing.py", 1, "rule Neg: no test reaches it"),
            marks=pytest.mark.nightly,
        ),
        ("Identity", "test_padding.py", 1, "0 of 1 conditions and rules"),
    ],
)
def test_reports_what_no_test_misses(rule, tests, code, said):
    command = [sys.executable, "-m", "scripts.mutation", "--only", f"rule {rule}", "--jobs", "1"]
    done = subprocess.run(
        [*command, f"tests/lift/{tests}"], cwd=mutants.ROOT, capture_output=True, text=True
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout


def test_every_condition_has_its_turn(monkeypatch):
    found = [mutants.Condition(f"file.py:{line}:1", "", neutral=False) for line in range(200)]
    assert mutation.shared_out(found, 1) == found
    heads = iter("abcdefghij")
    monkeypatch.setattr(
        mutation.subprocess,
        "run",
        lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=next(heads)),
    )
    shares = [mutation.shared_out(found, 2) for _ in range(10)]
    assert all(60 < len(share) < 140 for share in shares)
    assert len({c for share in shares for c in share}) == 200
