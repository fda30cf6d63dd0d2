"""onnxfuse: collapse multi-branch networks in ONNX models into single Convs, with proofs."""

from onnxfuse._version import __version__
from onnxfuse.certify import Certificate
from onnxfuse.errors import CertificateError, ExportWarning, ModelError, OnnxfuseError, ParityError
from onnxfuse.exporter import ExportResult, Parity, export
from onnxfuse.fold import Fold
from onnxfuse.pipeline import OptimizeResult, optimize
from onnxfuse.report import Counts, Refused, Report

__all__ = [
    "Certificate",
    "CertificateError",
    "Counts",
    "ExportResult",
    "ExportWarning",
    "Fold",
    "ModelError",
    "OnnxfuseError",
    "OptimizeResult",
    "Parity",
    "ParityError",
    "Refused",
    "Report",
    "__version__",
    "export",
    "optimize",
]
