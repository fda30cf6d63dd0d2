"""Samples that a model is calibrated with, or judged by: images, arrays, or anything in Python."""

from onnxfuse.calibration.images import Pixels
from onnxfuse.calibration.reading import read_samples
from onnxfuse.calibration.samples import Samples

__all__ = ["Pixels", "Samples", "read_samples"]
