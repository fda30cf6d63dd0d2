"""How models are loaded that are to be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxfuse.runtime import Session, open_session
from onnxfuse.runtime.session import Openable, Optimization


@dataclass(frozen=True)
class Settings:
    """What all sessions of a measurement have in common.

    Attributes:
        provider: ONNX Runtime's name of the provider.
        optimization: How far the runtime's own optimizer goes.
        threads: Threads within an operator; None for the runtime's choice.
        tf32: On CUDA, whether products in float32 may be computed in TF32.
        config: Entries of the sessions' configuration.
    """

    provider: str
    optimization: Optimization = "all"
    threads: int | None = None
    tf32: bool = False
    config: Mapping[str, str] = field(default_factory=dict)

    def open(self, model: Openable, profile_prefix: Path | None = None) -> Session:
        """A session whose threads stop spinning when its run is over.

        Otherwise the threads of a session that has had its turn would keep the cores busy through
        the next one's.

        Raises:
            ModelError: ONNX Runtime cannot load the model, or not on this provider.
        """
        return open_session(
            model,
            self.provider,
            optimization=self.optimization,
            threads=self.threads,
            tf32=self.tf32,
            profile_prefix=profile_prefix,
            stop_spinning=True,
            config=self.config,
        )
