"""The process in which two models take turns; its parent is `onnxfuse.benchmark.gate`.

Reads their files from standard input and prints a `Gate` as JSON, or in a string why there is none.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path

from onnxfuse.benchmark.cases import Case, made_cases
from onnxfuse.benchmark.gate import Gate
from onnxfuse.benchmark.matching import match
from onnxfuse.benchmark.measuring import Opened
from onnxfuse.benchmark.rounds import measure
from onnxfuse.benchmark.settings import Settings
from onnxfuse.benchmark.statistics import median_of_blocks, paired_ratio
from onnxfuse.errors import ModelError
from onnxfuse.runtime import RunError, load_model
from onnxfuse.runtime.providers import require_provider, short_name

_BUDGET = 1.0  # seconds of measuring, where rounds are short
_WARM_UP = 2


def compared(original: Path, optimized: Path) -> Gate:
    """Two models in turn; once more, with new sessions, where the second is slower.

    Raises:
        ModelError: ONNX Runtime cannot load one of them.
        RunError: It cannot run one of them.
    """
    with ExitStack() as stack:
        first = stack.enter_context(load_model(original, "the original"))
        second = stack.enter_context(load_model(optimized, "the result"))
        opened = Opened([first, second], Settings(require_provider("cpu")))
        (case,) = made_cases(first, opened.sessions[0], {}, ())
        found = _timed(opened, case)
        if found.is_slower:
            opened.renew()
            found = max(found, _timed(opened, case), key=lambda gate: gate.ratio.value)
        return found


def _timed(opened: Opened, case: Case) -> Gate:
    feeds = [match(case.feeds, opened.models[0], model) for model in opened.models]
    blocks = measure(opened.runners(feeds), warm_up=_WARM_UP, budget=_BUDGET)
    before, after = (median_of_blocks(found).value for found in blocks)
    provider = short_name(opened.settings.provider)
    return Gate(provider, case.shapes, before, after, paired_ratio(*blocks))


def _limit(seconds: float) -> None:
    """Half of the machine's memory; and the time, should nobody be there to end the process."""
    if sys.platform != "win32":
        import resource

        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(ValueError, OSError):  # systems that have no such limit
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        signal.setitimer(signal.ITIMER_REAL, 2 * seconds)


def main() -> None:
    """Measures, and prints what came of it."""
    original, optimized, seconds = pickle.load(sys.stdin.buffer)  # from our own parent
    _limit(seconds)
    try:
        printed = json.dumps(asdict(compared(original, optimized)))
    except (ModelError, RunError) as error:
        printed = json.dumps(str(error))
    print(printed)


if __name__ == "__main__":
    main()
