"""Exceptions that users of onnxfuse can catch."""

from onnxfuse.printing import printable


class OnnxfuseError(Exception):
    """Base class of every error that onnxfuse raises on purpose. Its message is one line."""

    def __str__(self) -> str:
        """The message; what names from a file may hold is written as escapes."""
        return printable(super().__str__())


class ModelError(OnnxfuseError):
    """The model, a file or an option cannot be used (exit code 2 on the command line)."""


class CertificateError(OnnxfuseError):
    """A fold did not agree with the nodes it replaces (exit code 3); nothing was written."""


class ExportWarning(UserWarning):
    """An export went another way than asked for, or could not be checked in full; one line."""


class ParityError(OnnxfuseError):
    """An exported model does not compute what PyTorch does (exit code 3); nothing was written."""
