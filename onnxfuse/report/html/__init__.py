"""Reports as pages of HTML: one file each, which loads nothing from anywhere."""

from onnxfuse.report.html.benching import bench_figures, bench_page, bench_sections
from onnxfuse.report.html.checking import check_figures, check_page, check_sections
from onnxfuse.report.html.compressing import compress_figures, compress_page, compress_sections
from onnxfuse.report.html.optimizing import optimize_figures, optimize_page, optimize_sections
from onnxfuse.report.html.page import Figure, Section, page
from onnxfuse.report.html.quantizing import quantize_figures, quantize_page, quantize_sections

__all__ = [
    "Figure",
    "Section",
    "bench_figures",
    "bench_page",
    "bench_sections",
    "check_figures",
    "check_page",
    "check_sections",
    "compress_figures",
    "compress_page",
    "compress_sections",
    "optimize_figures",
    "optimize_page",
    "optimize_sections",
    "page",
    "quantize_figures",
    "quantize_page",
    "quantize_sections",
]
