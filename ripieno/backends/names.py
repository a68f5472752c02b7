"""Former name of `ripieno.backends.backend_id`, for one version."""

import warnings

from ripieno.backends.backend_id import PRECISIONS, Name, Precision, file_of, join, module_of, split

__all__ = ["PRECISIONS", "Name", "Precision", "file_of", "join", "module_of", "split"]

warnings.warn(
    "ripieno.backends.names is now ripieno.backends.backend_id; the old name goes with the next version.",
    DeprecationWarning,
    stacklevel=2,
)
