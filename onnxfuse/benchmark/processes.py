"""Processes of their own for what is measured."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

_HOME = Path(__file__).parents[2]
"""Where the process runs: before Python 3.11 it imports from there in spite of PYTHONSAFEPATH."""


def call(module: str, given: Any, seconds: float) -> bytes | str:
    """Runs a module of this package's; what it reads and prints is for it alone.

    Args:
        module: Its name.
        given: What it reads from standard input, pickled.
        seconds: After which it is given up.

    Returns:
        What it printed; or, as a string, why it failed: the last line of its messages.
    """
    search = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    environment = {**os.environ, "PYTHONPATH": search, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", module]
    try:
        done = subprocess.run(
            command,
            input=pickle.dumps(given),
            capture_output=True,
            cwd=_HOME,
            env=environment,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"it takes more than {seconds:g} s"
    except OSError as error:
        return str(error)
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"the process ended with {done.returncode}"
