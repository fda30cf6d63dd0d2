"""Models in, models out: the only package that touches the disk for models.

Reading brings external data in on demand, and says in one line what is wrong with a file that
cannot be used. Writing is atomic: the output appears whole or not at all.
"""

from onnxfuse.io.files import (
    PROTOBUF_LIMIT,
    check_data_target,
    check_target,
    data_name,
    texts_behind,
    write_text,
)
from onnxfuse.io.reading import read
from onnxfuse.io.source import Source
from onnxfuse.io.writing import write

__all__ = [
    "PROTOBUF_LIMIT",
    "Source",
    "check_data_target",
    "check_target",
    "data_name",
    "read",
    "texts_behind",
    "write",
    "write_text",
]
