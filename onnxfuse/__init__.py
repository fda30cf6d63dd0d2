"""onnxfuse: collapse multi-branch networks in ONNX models into single Convs, with proofs."""

from onnxfuse._version import __version__
from onnxfuse.benchmark import BenchResult, Interval, Timing, bench
from onnxfuse.calibration import Pixels
from onnxfuse.certify import Certificate
from onnxfuse.compression import (
    Compressed,
    CompressReport,
    CompressResult,
    LeftAlone,
    OutputError,
    compress,
)
from onnxfuse.errors import CertificateError, ExportWarning, ModelError, OnnxfuseError, ParityError
from onnxfuse.exporter import ExportResult, Parity, export
from onnxfuse.fold import Fold
from onnxfuse.parity import CheckResult, Closeness, Divergence, Meaning, OutputParity, check
from onnxfuse.pipeline import OptimizeResult, optimize
from onnxfuse.quantization import QuantizeReport, QuantizeResult, quantize
from onnxfuse.report import Counts, Refused, Report, Tuned
from onnxfuse.tuning import tune

__all__ = [
    "BenchResult",
    "Certificate",
    "CertificateError",
    "CheckResult",
    "Closeness",
    "CompressReport",
    "CompressResult",
    "Compressed",
    "Counts",
    "Divergence",
    "ExportResult",
    "ExportWarning",
    "Fold",
    "Interval",
    "LeftAlone",
    "Meaning",
    "ModelError",
    "OnnxfuseError",
    "OptimizeResult",
    "OutputError",
    "OutputParity",
    "Parity",
    "ParityError",
    "Pixels",
    "QuantizeReport",
    "QuantizeResult",
    "Refused",
    "Report",
    "Timing",
    "Tuned",
    "__version__",
    "bench",
    "check",
    "compress",
    "export",
    "optimize",
    "quantize",
    "tune",
]
