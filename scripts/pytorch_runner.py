"""PyTorch on the deploy form of a network, in a process of its own that is told when to run.

python -m scripts.pytorch_runner NETWORK eager|compile THREADS
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from types import TracebackType

READY = "ready"


class PyTorchRunner:
    """A runner for `onnxfuse.benchmark.rounds.measure`: runs a network so many times, in seconds.

    Raises:
        RunnerError: It fails, or does not answer in time.
    """

    def __init__(self, network: str, mode: str, threads: int, limit: float) -> None:
        command = [sys.executable, "-m", "scripts.pytorch_runner", network, mode, str(threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._limit = limit
        self._said: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=f) for f in (self._listen, self._complain)]
        for thread in self._threads:
            thread.start()
        try:
            self._answer()
        except RunnerError:
            self.close()
            raise

    def __call__(self, times: int) -> float:
        """Seconds of that many runs, as the process itself measures them."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{times}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def __enter__(self) -> PyTorchRunner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _answer(self) -> str:
        try:
            said = self._said.get(timeout=self._limit)
        except queue.Empty:
            raise RunnerError(f"over {self._limit:g} s") from None
        if not said:
            self._threads[1].join()
            raise RunnerError(f"failed: {self._errors[-1] if self._errors else 'no reason given'}")
        return said

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(line.strip())
        self._said.put("")

    def _complain(self) -> None:
        assert self._process.stderr is not None
        self._errors += [line.strip() for line in self._process.stderr if line.strip()]


class RunnerError(Exception):
    """Why a network cannot be run; one line."""


def main() -> None:
    """Says that it is ready, then runs as often as each line says, and answers with the seconds."""
    network, mode, threads = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a compiler prints is no answer
    import torch

    from models import ZOO, build, reparameterize

    torch.set_num_threads(int(threads))
    module = reparameterize(build(network)).eval()
    image = torch.randn(ZOO[network].input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        run = torch.compile(module) if mode == "compile" else module
        run(image)
        print(READY, file=answers, flush=True)
        for line in sys.stdin:
            start = time.perf_counter()
            for _ in range(int(line)):
                run(image)
            print(time.perf_counter() - start, file=answers, flush=True)


if __name__ == "__main__":
    main()
