"""What can go wrong in an export, and the exit code it ends with.

    ShoalError
    └── ExportError       bad input: the run folder, the settings, the disk    exit code 2
        └── GateFailed    the float32 model is not what Keras trained          exit code 3

A variant other than float32 that misses its gate is no error: it is left out, and `export.json` says why.
"""

from server.errors import ShoalError


class ExportError(ShoalError):
    """The export cannot be done as asked. Nothing visible was written."""


class GateFailed(ExportError):
    """The float32 reference missed its gate, so nothing visible was written."""
