"""Does a test fail for every condition that is taken out?

First the tests run once, and note which conditions decide in them (`scripts.mutants`). Then each
condition is taken out in turn, and the tests in which it decides run until one fails.

    python -m scripts.mutation [--only onnxfuse/lift/pooling.py] [--share 2] [--jobs 2]

Exit code 1 when there is a condition without which all tests pass.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts import mutants

TESTS = (
    "tests/affine",
    "tests/equalization",
    "tests/lift",
    "tests/rewrites",
    "tests/test_certify.py",
)
WITHOUT = "--ignore-glob=*/test_random_*.py"  # each condition has a test of its own
_NEEDLESS = ("cacheprovider", "xdist", "unraisableexception", "threadexception")
OPTIONS = ("-q", "--no-header", "--tb=native", *(f"-pno:{plugin}" for plugin in _NEEDLESS))
BATCH = 20
LONGEST = 120.0  # seconds; a test that takes longer without a condition notices it
MEMORY = 8 << 30  # bytes, in each process
NOTICED, UNNOTICED, CANNOT_RUN = 0, 3, 4


@dataclass(frozen=True)
class Trial:
    """A condition, and the tests in which it decides, those that tell most first."""

    condition: mutants.Condition
    tests: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.tests)
        how = f"{count} tests reach it and pass without it" if count else "no test reaches it"
        return ": ".join(filter(None, (self.condition.key, self.condition.text, how)))


def decisions(tests: list[str], jobs: int) -> dict[str, tuple[float, list[str]]]:
    """Of every test how long it takes and what decides in it.

    Raises:
        RuntimeError: A test fails with nothing taken out.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "scripts.mutants", WITHOUT]
        environment = {**os.environ, mutants.FOLDER_VARIABLE: folder}
        done = subprocess.run(
            [*command, "-n", str(jobs), *tests],
            cwd=mutants.ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"tests fail as it is:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
        found: dict[str, tuple[float, list[str]]] = {}
        for file in Path(folder).glob("*.json"):
            found.update(json.loads(file.read_text()))
        return found


def trials(
    conditions: list[mutants.Condition], noted: dict[str, tuple[float, list[str]]]
) -> list[Trial]:
    """What to try: of every condition the tests in which few others decide, and the quick ones."""
    found = []
    for condition in conditions:
        deciding = [
            (len(keys) * seconds, test)
            for test, (seconds, keys) in noted.items()
            if condition.key in keys
        ]
        found.append(Trial(condition, tuple(test for _, test in sorted(deciding))))
    return found


def shared_out(found: list[mutants.Condition], share: int) -> list[mutants.Condition]:
    """One in so many conditions: others in every commit."""
    command = ["git", "rev-parse", "HEAD"]
    done = subprocess.run(command, cwd=mutants.ROOT, capture_output=True, text=True)
    key = done.stdout.strip()
    return [c for c in found if zlib.crc32(f"{key} {c.key}".encode()) % share == 0]


def load(tests: list[str]) -> None:
    """Imports the tests, which the processes of the trials have then.

    Raises:
        RuntimeError: They cannot be collected.
    """
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = pytest.main(["--collect-only", *OPTIONS, WITHOUT, *tests], [mutants])
    gc.freeze()
    if code:
        raise RuntimeError(f"tests cannot be collected:\n{printed.getvalue()[-4000:]}")


def is_noticed(trial: Trial) -> bool:
    """True when a test fails once the condition is taken out. For a process of its own.

    Raises:
        RuntimeError: The tests cannot be run.
    """
    mutants.DECISIONS.taken_out = trial.condition.key
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    for start in range(0, len(trial.tests), BATCH):
        tests = trial.tests[start : start + BATCH]
        code = pytest.main(["-x", *OPTIONS, *tests], [mutants])
        if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
            raise RuntimeError(f"{trial.condition.key}: cannot run {' '.join(tests)}")
        if code:
            return True
    return False


def _try(trial: Trial) -> None:
    """Ends the process with what came of a trial."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        code = NOTICED if is_noticed(trial) else UNNOTICED
    except RuntimeError:
        code = CANNOT_RUN
    os._exit(code)


def outcomes(todo: list[Trial], jobs: int) -> Iterator[tuple[Trial, bool]]:
    """Every trial, and whether it is noticed: as a test that fails, a crash, or a hang.

    Each has a process of its own, so that nothing that tests keep outlives a condition.

    Raises:
        RuntimeError: The tests of one cannot be run.
    """
    fork = multiprocessing.get_context("fork")
    running: dict[int, tuple[multiprocessing.process.BaseProcess, Trial, float]] = {}
    pending = list(reversed(todo))
    while pending or running:
        while pending and len(running) < jobs:
            trial = pending.pop()
            process = fork.Process(target=_try, args=(trial,))
            process.start()
            running[process.sentinel] = (process, trial, time.monotonic() + LONGEST)
        multiprocessing.connection.wait(list(running), timeout=1.0)
        for sentinel, (process, trial, deadline) in list(running.items()):
            if process.is_alive() and time.monotonic() < deadline:
                continue
            process.kill()
            process.join()
            del running[sentinel]
            if process.exitcode == CANNOT_RUN:
                raise RuntimeError(f"cannot run the tests of {trial}")
            yield trial, process.exitcode != UNNOTICED


def main() -> int:
    """Runs all and prints what is left."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("tests", nargs="*", default=list(TESTS))
    parser.add_argument("--only", default="", metavar="PREFIX", help="conditions to take out")
    parser.add_argument("--share", type=int, default=1, metavar="N", help="one in N of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    start = time.perf_counter()
    noted = decisions(arguments.tests, arguments.jobs)
    mutants.install()
    wanted = [c for c in mutants.conditions() if c.key.startswith(arguments.only)]
    wanted = shared_out(wanted, arguments.share)
    os.chdir(mutants.ROOT)
    load(arguments.tests)
    todo = trials(wanted, noted)
    left = 0
    for trial, noticed in outcomes(todo, arguments.jobs):
        if not noticed:
            left += 1
            print(trial, flush=True)
    print(
        f"{len(todo) - left} of {len(todo)} conditions and rules are missed by a test "
        f"({time.perf_counter() - start:.0f} s)"
    )
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
