"""Spoilt files: refused in one line or optimized, and nothing else. ONNXFUSE_FUZZ=first:last."""

import os
import select
import subprocess
import sys

import pytest

SECONDS = 20


class Worker:
    """A process that goes through cases, started anew when it dies or hangs."""

    def __init__(self, folder):
        self.folder, self.process = folder, None

    def outcome(self, number):
        if self.process is None:
            command = [sys.executable, "-m", "tests.hostile.fuzz_worker", str(self.folder)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.process = subprocess.Popen(
                command, **pipes, stderr=subprocess.DEVNULL, text=True, bufsize=1
            )
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], SECONDS)[0]:
            self.stop()
            return f"takes more than {SECONDS} s"
        line = self.process.stdout.readline()
        if not line:
            return f"the process died: {self.stop()}"
        return line.rstrip("\n").split("\t", 1)[1]

    def stop(self):
        process, self.process = self.process, None
        if process is None:
            return 0
        process.stdin.close()
        process.kill()
        process.stdout.close()
        return process.wait()


def wrong(numbers, folder):
    worker = Worker(folder)
    try:
        said = {number: worker.outcome(number) for number in numbers}
    finally:
        worker.stop()
    assert {"ok", "refused"} <= set(said.values())
    return {number: text for number, text in said.items() if text not in ("ok", "refused")}


# What the fuzzer found: huge opsets and ranges, missing element types, functions of one name,
# newlines in names, 2^31 channels and none, biases and permutations that do not fit, strings.
FOUND = (
    75,
    245,
    515,
    898,
    1406,
    1419,
    1461,
    1517,
    2034,
    3128,
    3600,
    4775,
    10880,
    15020,
    15834,
    16929,
    20641,
)


def test_what_was_found_once(tmp_path):
    assert not wrong([*FOUND, *range(20)], tmp_path)


@pytest.mark.slow
def test_400_spoilt_files(tmp_path):
    assert not wrong(range(10_000, 10_400), tmp_path)


@pytest.mark.nightly
def test_5000_spoilt_files(tmp_path):
    first, last = map(int, os.environ.get("ONNXFUSE_FUZZ", "20000:25000").split(":"))
    assert not wrong(range(first, last), tmp_path)
