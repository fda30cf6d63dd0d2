"""The process in which a model's memory is measured; its parent is `onnxfuse.benchmark.memory`.

Reads what to run from standard input and prints the bytes by which resident memory grew.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def resident() -> tuple[int, int]:
    """Bytes of memory that are resident now, and at most so far; on macOS the latter twice.

    Raises:
        OSError: This system does not tell.
    """
    if sys.platform == "darwin":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak, peak
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
    try:
        now, peak = (1024 * int(lines[key].split()[0]) for key in ("VmRSS", "VmHWM"))
    except KeyError as error:
        raise OSError(f"{_STATUS} has no {error}") from error
    return now, peak


def forget_peak() -> None:
    """Makes the peak what is resident now, where the system allows it."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def main() -> None:
    """Creates a session, runs it, and prints by how many bytes the process grew."""
    from onnxfuse.benchmark.binding import caller

    settings, model, feeds = pickle.load(sys.stdin.buffer)  # from our own parent
    import onnxruntime

    onnxruntime.get_available_providers()
    forget_peak()
    before, _ = resident()
    call = caller(settings.open(model), feeds)
    call()
    _, peak = resident()
    print(max(peak - before, 0))


if __name__ == "__main__":
    main()
